// Writes docs/lifecycles.md from the tables of transitions. Build first.
import { writeFileSync } from 'node:fs'
import { printLifecycles } from '../dist/src/domain/lifecycles.js'

writeFileSync(new URL('../../docs/lifecycles.md', import.meta.url), printLifecycles())
