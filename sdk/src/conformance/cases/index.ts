import type { Case } from '../case.js'
import { handshakeCases } from './handshake.js'

/** Every case, theme by theme. */
export const allCases: readonly Case[] = [...handshakeCases]
