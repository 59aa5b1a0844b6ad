import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Page, StoredEvent } from '../ports/store.ts'
import { offerBatch, offerPage, place, tellPosition } from './outbox.ts'
import type { Outbox } from './state.ts'

const OWN = 1

function event(position: number, device_no: number, device_seq: number): StoredEvent {
  return { position, stream_seq: 1, received_at: position, device_no, device_seq, stream_no: 1, flags: 0, client: new Uint8Array(60) }
}

const START: Outbox = { mode: 'live', sent: 0, told: 0, tip: null, head: 0, full: false }

describe('the one comparison', () => {
  it('next is sent, older dropped, a hole read', () => {
    expect([place(5, 6, 8), place(5, 4, 8), place(5, 3, 5), place(5, 7, 8), place(0, 1, 1)]).toEqual([
      'next',
      'next',
      'older',
      'hole',
      'next',
    ])
  })

  it('of a batch that is partly older the rest is sent, and the whole one is shared', () => {
    const events = [event(1, 2, 1), event(2, 2, 2), event(3, 2, 3)]
    const own = { device_no: OWN, upto_seq: 0 }
    const limit = { ready: true, log_told: 0, bytes: 1e6 }
    const part = offerBatch({ ...START, sent: 1, told: 1 }, events, own, limit)
    expect(part.send).toMatchObject({ head: { after: 1, upto: 3 }, whole: false })
    expect(part.send!.events.map((e) => e.position)).toEqual([2, 3])
    expect(offerBatch(START, events, own, limit).send).toMatchObject({ whole: true, events })
    for (const hindered of [
      { ...limit, ready: false },
      { ...limit, log_told: -1 },
      { ...limit, bytes: 10 },
    ])
      expect(offerBatch(START, events, own, hindered)).toEqual({ outbox: { ...START, head: 3 }, send: null })
    expect(offerBatch(START, [events[0]!, events[2]!], own, limit).send).toBe(null)
    expect(offerBatch(START, [], own, limit)).toEqual({ outbox: START, send: null })
  })

  it('a page that brings nothing new corrects the head instead of being read for ever', () => {
    const page = { events: [], upto: 0, tip: null, head_position: 0, floor: 0 }
    expect(offerPage({ ...START, head: 9 }, page, 0, { device_no: OWN, upto_seq: 0 }).outbox.head).toBe(0)
    expect(offerPage({ ...START, sent: 5 }, page, 0, { device_no: OWN, upto_seq: 0 })).toEqual({
      outbox: { ...START, sent: 5 },
      send: null,
    })
  })
})

describe('properties', () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ is: fc.constant('hint' as const), at: fc.nat(60), size: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 3, arbitrary: fc.record({ is: fc.constant('read' as const), limit: fc.integer({ min: 1, max: 10 }) }) },
    { weight: 1, arbitrary: fc.record({ is: fc.constant('full' as const), full: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ is: fc.constant('round' as const) }) },
  )

  it('G14: hints that are lost, doubled, late or reordered change nothing but the time: every foreign event once, in order', () => {
    fc.assert(
      fc.property(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 60 }),
        fc.array(step, { maxLength: 80 }),
        fc.nat(30),
        (owners, steps, acked) => {
          let ownSeq = 0
          const log = owners.map((own, i) => event(i + 1, own ? OWN : 2, own ? ++ownSeq : i + 1))
          const own = { device_no: OWN, upto_seq: acked }
          const due = log.filter((e) => e.device_no !== OWN || e.device_seq > acked).map((e) => e.position)
          let outbox = START
          let told = 0
          const got: number[] = []
          const take = ({ outbox: next, send }: ReturnType<typeof offerBatch>): void => {
            outbox = next
            expect(outbox.told <= outbox.sent).toBe(true)
            if (send === null) return
            expect(send.head.after).toBe(told)
            told = send.head.upto
            got.push(...send.events.map((e) => e.position))
            if (send.events.at(-1)?.position !== told) expect(send.head.tip).toMatchObject({ received_at: told })
            else expect('tip' in send.head).toBe(false)
          }
          const read = (limit: number): void => {
            const until = log.slice(outbox.sent, outbox.sent + limit)
            const last = until.at(-1)
            const upto = last?.position ?? outbox.sent
            const tip = last === undefined ? null : { event_id: '', received_at: last.received_at }
            const page: Page = { events: until, upto, tip, head_position: log.length, floor: 0 }
            take(offerPage(outbox, page, outbox.sent, own))
          }
          for (const s of steps) {
            if (s.is === 'hint') take(offerBatch(outbox, log.slice(s.at, s.at + s.size), own, { ready: true, log_told: 0, bytes: 1e6 }))
            else if (s.is === 'full') outbox = { ...outbox, full: s.full }
            else if (s.is === 'round') take(tellPosition(outbox))
            else if (!outbox.full) read(s.limit)
          }
          outbox = { ...outbox, full: false }
          while (outbox.sent < log.length) read(7)
          take(tellPosition(outbox))
          expect(got).toEqual(due)
          expect(told).toBe(log.length)
        },
      ),
      { numRuns: 2_000 },
    )
  })
})
