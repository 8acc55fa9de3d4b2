import { cpus, totalmem } from 'node:os'

/** The machine that measured. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGib: number
  readonly node: string
  readonly postgresql: string
}

export function describeMachine(postgresql: string): Machine {
  const all = cpus()
  return {
    cpu: all[0]?.model.trim() ?? 'unknown',
    cores: all.length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    node: process.versions.node,
    postgresql,
  }
}
