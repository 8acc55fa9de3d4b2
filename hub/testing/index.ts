export { withDatabase, withEmptyDatabase, type TestDatabase } from './database.js'
export { withHub, type TestHub } from './hub.js'
