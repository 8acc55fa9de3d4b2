import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readReply } from '../testing/packets.js'

// Run in a namespace: sends a packet as a machine's firmware does, and prints what it is answered, a line of JSON for each answer.
// Arguments: hexadecimal packet, address, port to send to, port to send from, milliseconds to wait.

const [packet = '', address = '255.255.255.255', to = '67', from = '68', waitMs = '1500'] = process.argv.slice(2)
const socket = createSocket({ type: 'udp4', reuseAddr: true })
socket.bind(Number(from), '0.0.0.0')
await once(socket, 'listening')
socket.setBroadcast(true)
socket.on('message', (bytes, sender) => {
  const { type, yiaddr, siaddr, file, options } = readReply(bytes)
  const shown = {
    type,
    yiaddr,
    siaddr,
    file,
    from: sender.address,
    options: Object.fromEntries([...options].map(([code, value]) => [code, value.toString('hex')])),
  }
  console.log(JSON.stringify(shown))
})
socket.send(Buffer.from(packet, 'hex'), Number(to), address)
setTimeout(() => socket.close(), Number(waitMs))
