// `node --import test/planted/register.mjs` with SLIPWAY_PLANTED=<name>: see catalogue.mjs.
import { register } from 'node:module'
import { catalogue } from './catalogue.mjs'

const name = process.env.SLIPWAY_PLANTED ?? ''
const bug = catalogue.find((entry) => entry.name === name)
if (bug === undefined)
  throw new Error(
    `SLIPWAY_PLANTED: there is no planted bug «${name}»; there are ${catalogue.map((entry) => entry.name).join(', ')}`,
  )
register('./hooks.mjs', import.meta.url, { data: bug })
