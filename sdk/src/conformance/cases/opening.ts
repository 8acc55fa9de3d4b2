import type { Case } from '../case.js'

/** The first case of every run: without it no other can tell anything. */
export const opening: Case = {
  id: 'handshake/opens-a-session',
  rule: 'A provider that is started with a gateway, a state folder and a join token enrols, says Hello, and takes work.',
  basic: true,
  async run(bench) {
    await bench.instance()
  },
}
