import { expect, it, vi } from 'vitest'
import { createSlotWaits } from './slot-waits.ts'

const never = () => new AbortController().signal

it('a wake ends all waits for that slot and no other one', async () => {
  const waits = createSlotWaits()
  const one = waits.wait('m/join', 60_000, never())
  const two = waits.wait('m/join', 60_000, never())
  const other = waits.wait('m/done', 60_000, never())
  const ended = vi.fn<() => void>()
  void other?.over.then(ended)
  waits.wake('m/join')
  await Promise.all([one?.over, two?.over])
  expect(ended).not.toHaveBeenCalled()
  other?.cancel()
  await other?.over
})

it('a wait ends with its time, with its signal, and with the server', async () => {
  const waits = createSlotWaits()
  await waits.wait('m/join', 1, never())?.over
  const gone = new AbortController()
  const aborted = waits.wait('m/join', 60_000, gone.signal)
  gone.abort()
  await aborted?.over
  const last = waits.wait('m/join', 60_000, never())
  waits.close()
  await last?.over
  expect(waits.wait('m/join', 60_000, never())).toBeNull()
})

it('above the bound nobody waits, and an ended wait makes room', () => {
  const waits = createSlotWaits(2)
  const one = waits.wait('a', 60_000, never())
  const two = waits.wait('b', 60_000, never())
  expect(waits.wait('c', 60_000, never())).toBeNull()
  one?.cancel()
  one?.cancel()
  const three = waits.wait('c', 60_000, never())
  expect(three).not.toBeNull()
  expect(waits.wait('d', 60_000, never())).toBeNull()
  two?.cancel()
  three?.cancel()
})
