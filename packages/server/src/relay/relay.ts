/**
 * What sockets and REST share (protocol.md §6, §7): one inbox in front of the store, one way to read pages and entries, what is told the
 * store of who is here, and the sessions that are open, over whatever. `last_seen` is written every `touchMs`.
 *
 * Invariant: nothing of a closed relay goes on: no timer, session or store call.
 */
import type { Bytes } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { recordBudget } from '../core/delivery.ts'
import { createInbox } from '../ingest/inbox.ts'
import { createLoadShed, type Load } from '../limits/load.ts'
import { createRateLimits, type RateLimits } from '../limits/rate-limits.ts'
import type { Log } from '../telemetry/log.ts'
import type { Bus, Store } from '../ports/store.ts'
import { type Admission, createAdmission } from './load/admission.ts'
import { createContinuations } from './replay/continuation.ts'
import { createEventEncoder, type EventEncoder } from './replay/event-message.ts'
import { RELAY_LIMITS, type RelayLimits } from './limits.ts'
import { createEntryReader } from './sessions/log-entries.ts'
import { createPace } from './load/pace.ts'
import type { NodeLease } from './sessions/node-lease.ts'
import { createPages } from './replay/pages.ts'
import { createPresence } from './sessions/presence.ts'
import { createSeats, type Seats } from './sessions/seats.ts'
import type { SessionDeps } from './sessions/session-run.ts'
import { createSessions, type Sessions } from './sessions/sessions.ts'
import { createWork, type Work } from './load/work.ts'

export type RelayDeps = {
  store: Store
  bus: Bus
  node: Pick<NodeLease, 'node_no' | 'live'>
  /** Continuation tokens are made with it. */
  token_key: Bytes
  logger: Log
  /** Rates over time, of sockets and REST together. */
  rates?: RateLimits
  /** For what differs from the protocol's limits. */
  limits?: Partial<RelayLimits>
}

export type Relay = SessionDeps & {
  readonly limits: RelayLimits
  readonly encoder: EventEncoder
  readonly sessions: Sessions
  readonly seats: Seats
  readonly work: Work
  /** What is queued on the way out, in the whole process. */
  readonly outbound: { bytes: number }
  readonly rates: RateLimits
  /** Null, or ms to stay away: there is no room for new work now. */
  overloaded(): number | null
  /** Of handshakes: a herd comes in as fast as it can be served. */
  readonly admission: Admission
  /** The last look at the figures that decide about it. */
  load(): Load & { shedding: boolean }
  /** A device was seen by other ways than a session. */
  touch(device: { user_no: number; device_no: number }): void
  /** Tells all sessions to go elsewhere, acks what is in flight and closes them, slice by slice (`drain.ts`); cuts off what is left. */
  drain(): Promise<void>
  /** Ends what is left. Resolves when nothing of the relay goes on. */
  close(): Promise<void>
}

export function createRelay({ store, bus, node, token_key, logger, ...options }: RelayDeps): Relay {
  const limits: RelayLimits = { ...RELAY_LIMITS, ...options.limits }
  const failed = (error: unknown): void => logger.warn({ err: error }, 'the store failed')
  const work = createWork(logger)
  const presence = createPresence(store, () => node.node_no)
  const outbound = { bytes: 0 }
  const sessions = createSessions({ store, limits, work, failed, random })
  const inbox = createInbox({
    store,
    bounds: {
      queue_bytes: limits.queueBytesMax,
      batch_events: limits.commitEventsMax,
      batch_bytes: limits.commitBytesMax,
      message_bytes: recordBudget(limits),
      // nodes that share a database commit side by side anyway, and fewer commits with more in each cost less
      lanes: () => (node.live() > 1 ? 1 : 2),
      // each node counts its own, and grants its part
      events_per_minute: () => Math.max(1, Math.floor(limits.eventsPerUserPerMinute / node.live())),
    },
    committed: (user_no, events) => bus.publish(user_no, { is: 'committed', history_id: store.history_id, events }),
    failed,
    now: () => performance.now(),
    jitter: (min) => Math.floor(min + random() * min),
  })
  const rates = options.rates ?? createRateLimits()
  const shed = createLoadShed({ random, queues: () => Math.max(outbound.bytes, inbox.stats().bytes) / limits.queueBytesMax })
  const clocks = [
    setInterval(() => work.track(presence.flush().catch(failed)), limits.touchMs),
    setInterval(() => work.track(presence.retry().catch(failed)), limits.presenceRoundMs),
  ]
  for (const clock of clocks) clock.unref()
  bus.onReach((reach) => {
    if (reach === 'up') sessions.lookNow()
  })
  let closed: Promise<void> | null = null

  async function closeAll(): Promise<void> {
    await sessions.close()
    for (const clock of clocks) clearInterval(clock)
    shed.close()
    await inbox.idle()
    await work.idle()
    await presence.flush().catch(failed)
  }

  return {
    store,
    bus,
    node,
    inbox,
    presence,
    limits,
    logger,
    sessions,
    work,
    outbound,
    encoder: createEventEncoder(),
    seats: createSeats(limits),
    pace: createPace({
      events: limits.eventsPerDevicePerSecond,
      bytes: limits.bytesPerDevicePerSecond,
      burst_s: limits.burstSeconds,
    }),
    readPage: createPages({
      store,
      continuations: createContinuations(token_key, limits.continuationMs),
      page_bytes: recordBudget(limits),
      reads: limits.pageReadsMax,
      failed,
    }),
    readEntries: createEntryReader(store, limits),
    rates,
    load: () => ({ ...shed.load(), shedding: shed.retryAfterMs() !== null }),
    overloaded: () => shed.retryAfterMs() ?? (outbound.bytes > limits.queueBytesMax ? FULL_MS : null),
    admission: createAdmission({ per_second: limits.handshakesPerSecond, now: () => performance.now(), random }),
    touch: (device) => presence.touch(device, 0),
    async drain() {
      await sessions.drain()
      await sessions.close()
    },
    close() {
      closed ??= closeAll()
      return closed
    },
  }
}

/** The queues are emptied as fast as others read; the shed looks only twice a second. */
const FULL_MS = 5_000

/** 0 ≤ x < 1. */
function random(): number {
  return new DataView(nodeCrypto.random(4).buffer).getUint32(0) / 2 ** 32
}
