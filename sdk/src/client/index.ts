export { createSlipwayClient, type ClientOptions, type SlipwayClient } from './client.js'
export { followConsole, type ConsoleUpdate } from './console.js'
export { SlipwayError, type FieldViolation } from './errors.js'
export { follow, type WatchUpdate } from './watch.js'
