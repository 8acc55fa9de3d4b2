#!/usr/bin/env node
import { existsSync } from 'node:fs'

const bundle = new URL('../dist/bundle/slipway.js', import.meta.url)
if (existsSync(bundle)) await import(bundle.href)
else {
  console.error('slipway is not built yet: run `npm run build` first.')
  process.exit(1)
}
