/**
 * The plaintext of a message with records (protocol.md §5): head and records in one buffer. A batch that goes out whole is
 * built once and shared by all sessions that are told of it from the same position; only those that get a part of it, or come
 * from elsewhere, have their own build. Both buffers are reused: what is returned is good until the next call.
 */
import { type Bytes, type ServerHead, utf8, viewOf, writeRecord } from '@sealpost/protocol'
import { factsOf } from '../../core/batch.ts'
import type { StoredEvent } from '../../ports/store.ts'

export type EventEncoder = {
  encode(head: ServerHead, events: readonly StoredEvent[], whole: boolean): Bytes
  /** How many plaintexts were built, and how often a build was used again. */
  stats(): { built: number; shared: number }
}

const SCRATCH_BYTES = 65_536

export function createEventEncoder(): EventEncoder {
  let shared: { events: readonly StoredEvent[]; after: number; message: Bytes } | null = null
  let sharedScratch = new Uint8Array(SCRATCH_BYTES)
  let ownScratch = new Uint8Array(SCRATCH_BYTES)
  let built = 0
  let reused = 0

  function write(scratch: Bytes, json: Bytes, events: readonly StoredEvent[]): Bytes {
    viewOf(scratch).setUint32(0, json.length)
    scratch.set(json, 4)
    let at = 4 + json.length
    for (const event of events) at = writeRecord(scratch, at, event.flags, event.client, event)
    built += 1
    return scratch.subarray(0, at)
  }

  return {
    encode(head, events, whole) {
      const after = head.type === 'event' ? head.after : -1
      if (whole && shared !== null && shared.events === events && shared.after === after) {
        reused += 1
        return shared.message
      }
      const json = utf8(JSON.stringify(head))
      const size = 4 + json.length + factsOf(events).bytes
      if (!whole) {
        if (ownScratch.length < size) ownScratch = new Uint8Array(size)
        return write(ownScratch, json, events)
      }
      if (sharedScratch.length < size) sharedScratch = new Uint8Array(size)
      shared = { events, after, message: write(sharedScratch, json, events) }
      return shared.message
    },
    stats: () => ({ built, shared: reused }),
  }
}
