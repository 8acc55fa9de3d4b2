export { withDatabase, withEmptyDatabase, type TestDatabase } from './database.js'
