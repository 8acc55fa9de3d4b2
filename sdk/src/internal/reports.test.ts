import { create } from '@bufbuild/protobuf'
import { NackReason, NackSchema } from '@slipway/proto/provider/v1'
import fc from 'fast-check'
import t from 'tap'
import type { Link } from './link.js'
import { Reports } from './reports.js'

/** A stream that keeps what goes over it. */
function makeLink(): { readonly link: Link; readonly said: { readonly sequence: bigint; readonly message: string }[] } {
  const said: { sequence: bigint; message: string }[] = []
  const send: Link['send'] = (body) => {
    if (body.case !== 'report') throw new Error(`${body.case} was not expected`)
    said.push({ sequence: body.value.sequence ?? 0n, message: body.value.progress?.message ?? '' })
  }
  const link = { send, busy: false, closed: new Promise<never>(() => undefined) } as unknown as Link
  return { link, said }
}

const progress = (message: string) => ({ progress: { step: 's', message } })

void t.test('what is told of a claim waits for the answer to what was told before, and the newest goes on', (t) => {
  const { link, said } = makeLink()
  const reports = new Reports()
  reports.attach(link)
  for (const message of ['one', 'two', 'three']) reports.tell('a@1', progress(message))
  reports.tell('b@1', progress('of another'))
  t.same(
    said.map(({ message }) => message),
    ['one', 'of another'],
  )
  reports.ack(link, 1n)
  t.same(said.at(-1), { sequence: 3n, message: 'three' })
  reports.tell('a@1', progress('four'))
  reports.drop('a@1', 'over')
  reports.nack(link, create(NackSchema, { sequence: 3n, reason: NackReason.STALE_FENCE }), false)
  t.equal(said.length, 3, 'of a claim that is over nothing more is told')
  t.end()
})

void t.test('however answers come: one at a time for each claim, and the newest arrives', (t) => {
  const step = fc.oneof(fc.record({ tell: fc.integer({ min: 0, max: 2 }) }), fc.constant('answer' as const))
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { link, said } = makeLink()
      const reports = new Reports()
      reports.attach(link)
      const newest = new Map<string, string>()
      let answered = 0
      const answerNext = () => {
        const next = said[answered]
        if (next === undefined) return
        answered += 1
        reports.ack(link, next.sequence)
      }
      steps.forEach((each, index) => {
        if (each === 'answer') return answerNext()
        const claim = `c${each.tell}`
        newest.set(claim, `${claim}/${index}`)
        reports.tell(claim, progress(`${claim}/${index}`))
        const open = said.slice(answered).map(({ message }) => message.split('/')[0])
        if (new Set(open).size !== open.length) throw new Error('two of one claim were on their way')
      })
      while (answered < said.length) answerNext()
      const last = new Map(said.map(({ message }) => [message.split('/')[0] ?? '', message]))
      for (const [claim, message] of newest) if (last.get(claim) !== message) throw new Error(`${message} was lost`)
    }),
  )
  t.end()
})
