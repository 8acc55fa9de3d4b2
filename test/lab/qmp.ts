import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

/** Says something to a QEMU over its control socket. @returns what each command gave. @throws where one was refused. */
export async function tellQemu(
  path: string,
  ...commands: readonly { readonly execute: string; readonly arguments?: object }[]
): Promise<readonly unknown[]> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]()
    const answers: unknown[] = []
    await lines.next()
    for (const command of [{ execute: 'qmp_capabilities' }, ...commands]) {
      socket.write(`${JSON.stringify(command)}\n`)
      answers.push(await answerOf(lines))
    }
    return answers.slice(1)
  } finally {
    socket.destroy()
  }
}

async function answerOf(lines: AsyncIterator<string>): Promise<unknown> {
  for (;;) {
    const { value, done } = await lines.next()
    if (done === true) throw new Error('QEMU hung up')
    const said = JSON.parse(value) as { return?: unknown; error?: { desc: string } }
    if (said.error !== undefined) throw new Error(said.error.desc)
    if ('return' in said) return said.return
  }
}
