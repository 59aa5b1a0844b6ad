import { describe, expect, it } from 'vitest'
import { makeRecords, takeAcks, takeEvents, useRelay } from '@sealpost/testing/relays/socket-relay'
import { unheld } from '@sealpost/testing/relays/unheld'

const relay = useRelay()

async function removeAll(user_no: number): Promise<number> {
  const batch = await unheld(() => relay.store.removePrefix(user_no, { age_ms: 0, tombstone_ms: null, bytes: null }))
  return batch.is === 'done' ? batch.rows : 0
}

describe('after retention removed events', () => {
  it('R11: an event that is sent again is acked with position and stream_seq 0, and the next number goes on', async () => {
    const account = await relay.account()
    const first = await relay.connect(account)
    const records = makeRecords(first, 1, 2, { epoch: account.log_seq })
    first.sendRecords(...records)
    await takeAcks(first, 2)
    await first.close()
    expect(await removeAll(account.user_no)).toBe(2)
    const again = await relay.connect(account, 0)
    expect(again.established).toMatchObject({ last_device_seq: 2, floor: 2, head_position: 2 })
    again.sendRecords(...records, ...makeRecords(again, 3, 1, { epoch: account.log_seq }))
    const acks = await takeAcks(again, 3)
    expect(acks).toMatchObject([
      { device_seq: 1, position: 0, stream_seq: 0 },
      { device_seq: 2, position: 0, stream_seq: 0 },
      { device_seq: 3, position: 3, stream_seq: 3 },
    ])
  })

  it('a cursor whose entry went holds in the same history; one of another history is reset', async () => {
    const account = await relay.account(2)
    const [sender, reader] = [await relay.connect(account, 0), await relay.connect(account, 1)]
    sender.sendRecords(...makeRecords(sender, 1, 3, { epoch: account.log_seq }))
    const [, second] = await takeEvents(reader, 3, 0)
    await reader.close()
    const { history_id = null } = sender.established
    expect(await removeAll(account.user_no)).toBe(3)
    const cursor = { position: 2, event_id: second!.event_id, received_at: second!.server!.received_at, history_id }
    const holds = await relay.connect(account, 1, { auth: { cursor } })
    expect(holds.established).toMatchObject({ mode: 'replay', floor: 3 })
    const { head, records } = await holds.replay()
    expect([records, head.upto, head.floor, head.has_more]).toEqual([[], 3, 3, false])
    await holds.close()
    const elsewhere = await relay.connect(account, 1, { auth: { cursor: { ...cursor, history_id: 'A'.repeat(43) } } })
    expect(elsewhere.established.mode).toBe('reset')
  })
})
