// node way.mjs ADDRESS PORT SOCKET: passes on what comes in at ADDRESS:PORT to a socket of the file system, the one thing that two network namespaces have in common.
import { connect, createServer } from 'node:net'

const [address, port, path] = process.argv.slice(2)
createServer((incoming) => {
  const outgoing = connect(path)
  incoming.pipe(outgoing).pipe(incoming)
  incoming.on('error', () => outgoing.destroy())
  outgoing.on('error', () => incoming.destroy())
}).listen(Number(port), address)
