// For tests: the Hetzner Cloud API on loopback.
export { Emulator, emulatorToken, readOnlyToken, type EmulatorOptions } from './emulator/emulator.js'
export type { Ledger, LedgerEntry } from './emulator/ledger.js'
