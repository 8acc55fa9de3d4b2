import { ack, readSettings, serveSessions, up, welcome, write } from './serving.js'
import type { SessionRequest } from '@slipway/proto/provider/v1'

// A bare gateway: greets, and acknowledges each report at once. It keeps nothing, so it is what the transport alone costs.

await serveSessions(readSettings(), (stream) => {
  stream.on('data', (frame: SessionRequest) => {
    const answers = frame.messages.flatMap(({ body }) =>
      body.case === 'hello' ? [welcome()] : body.case === 'report' ? [ack(body.value.sequence)] : [],
    )
    if (answers.length > 0) write(stream, answers)
  })
  stream.on('error', () => undefined)
  stream.on('end', () => stream.end())
})
up()
