import { BmcError, type BmcErrorKind } from '../errors.js'
import { hex } from './handshake.js'

interface Meaning {
  readonly kind: BmcErrorKind
  readonly text: string
}

/** Completion codes of all commands; IPMI 2.0, table 5-2. */
const meanings: Readonly<Record<number, Meaning>> = {
  0xc0: { kind: 'busy', text: 'it is busy' },
  0xc1: { kind: 'unsupported', text: 'it does not know the command' },
  0xc2: { kind: 'unsupported', text: 'it does not know the command for this part of it' },
  0xc3: { kind: 'busy', text: 'it took too long itself' },
  0xc4: { kind: 'busy', text: 'it has no room' },
  0xcb: { kind: 'unsupported', text: 'what was asked for is not there' },
  0xcd: { kind: 'unsupported', text: 'the command is illegal for this' },
  0xce: { kind: 'busy', text: 'it could not answer' },
  0xd0: { kind: 'busy', text: 'its SDR repository is being changed' },
  0xd1: { kind: 'busy', text: 'its firmware is being changed' },
  0xd2: { kind: 'busy', text: 'it is starting' },
  0xd3: { kind: 'unsupported', text: 'the destination is not there' },
  0xd4: { kind: 'privilege', text: 'the user may not do that' },
  0xd5: { kind: 'refused', text: 'not in the state that it is in' },
  0xd6: { kind: 'privilege', text: 'the command was disabled' },
}

/** @returns what an answer's completion code (its first byte) means, and undefined where it says that all is well. */
export function asError(answer: Buffer, what: string): BmcError | undefined {
  const code = answer.readUInt8(0)
  if (code === 0) return undefined
  const { kind, text } = meanings[code] ?? { kind: 'refused', text: 'it refuses' }
  return new BmcError(kind, `the BMC was asked ${what}: ${text} (completion code ${hex(code)})`, { said: hex(code) })
}
