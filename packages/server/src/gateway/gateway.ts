/**
 * The gateway put together: upgrades become connections, connections sessions; one inbox and one encoder for all; the clocks
 * of the process: timers every `tickMs`, the round of heads every 2 s (protocol.md §7), last-seen every `touchMs`.
 *
 * Invariant: nothing of a closed gateway goes on: no timer, socket or store call.
 */
import { CLOSE } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocket, WebSocketServer } from 'ws'
import type { Config } from '../config.ts'
import { recordBudget } from '../core/delivery.ts'
import { createAddressRule } from '../http/address.ts'
import { createInbox } from '../ingest/inbox.ts'
import type { Log } from '../log.ts'
import type { Bus, Store } from '../ports.ts'
import { createContinuations } from '../relay/continuation.ts'
import { createEventEncoder } from '../relay/event-message.ts'
import { createPages } from '../relay/pages.ts'
import type { Secrets } from '../secrets.ts'
import { createAuthenticator } from './authenticate.ts'
import { createEntryReader } from './log-entries.ts'
import { GATEWAY_LIMITS, type GatewayLimits } from './limits.ts'
import { createPresence } from './presence.ts'
import { createSessionRun, type SessionDeps, type SessionRun } from './session-run.ts'
import { checkUpgrade, createSeats, refuseUpgrade, type Seat, SUBPROTOCOL } from './upgrade.ts'

export type GatewayDeps = {
  store: Store
  bus: Bus
  secrets: Pick<Secrets, 'server_sign_seed' | 'server_key' | 'token_key'>
  config: Pick<Config, 'origins' | 'trusted_proxies' | 'rekey_after_ms' | 'rekey_after_frames'>
  logger: Log
  /** For what differs from the protocol's limits. */
  limits?: Partial<GatewayLimits>
}

export type GatewayStats = {
  sockets: number
  users_online: number
  queue_bytes: number
  outbound_bytes: number
  events_stored: number
  batches: number
}

export type Gateway = {
  /** Takes the upgrades of this HTTP server. */
  attach(server: Server): void
  /** Tells all sessions to go elsewhere, takes no new ones, acks what is in flight, closes 1001. Resolves when all sockets are gone. */
  drain(): Promise<void>
  /** Ends what is left. Resolves when nothing of the gateway goes on. */
  close(): Promise<void>
  /** Every session is to renew its keys. */
  requireRekey(): void
  stats(): GatewayStats
}

export function createGateway(deps: GatewayDeps): Gateway {
  const { store, bus, secrets, config, logger } = deps
  const { rekey_after_ms, rekey_after_frames } = config
  const limits: GatewayLimits = { ...GATEWAY_LIMITS, rekey_after_ms, rekey_after_frames, ...deps.limits }
  const failed = (error: unknown): void => logger.warn({ err: error }, 'the store failed')
  const now = (): number => performance.now()

  const runs = new Map<SessionRun, Seat>()
  const working = new Set<Promise<void>>()
  const queues = new Map<string, Promise<unknown>>()
  const attached: { server: Server; upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void }[] = []
  const presence = createPresence(store)
  const outbound = { bytes: 0 }
  const inbox = createInbox({
    store,
    bounds: {
      queue_bytes: limits.queueBytesMax,
      batch_events: limits.commitEventsMax,
      batch_bytes: limits.commitBytesMax,
      message_bytes: recordBudget(limits),
      events_per_minute: limits.eventsPerUserPerMinute,
    },
    committed: (user_no, events) => bus.publish(user_no, { is: 'committed', events }),
    failed,
    now,
    jitter: (min) => Math.floor(min + random() * min),
  })
  const session: SessionDeps = {
    crypto: nodeCrypto,
    limits,
    outbound,
    store,
    bus,
    inbox,
    presence,
    encoder: createEventEncoder(),
    authenticator: createAuthenticator(nodeCrypto, store),
    readPage: createPages({
      store,
      continuations: createContinuations(secrets.token_key, limits.continuationMs),
      page_bytes: recordBudget(limits),
      failed,
    }),
    readEntries: createEntryReader(store, limits),
    server: { sign_seed: secrets.server_sign_seed, server_key: secrets.server_key },
    logger,
    exclusively,
    track,
    authenticated: (run) => runs.get(run)?.authenticated(),
    gone: (run) => {
      runs.get(run)?.leave()
      runs.delete(run)
      if (runs.size === 0) for (const wake of emptied.splice(0)) wake()
    },
  }

  const seats = createSeats(limits)
  const addresses = createAddressRule(config.trusted_proxies)
  const sockets = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    autoPong: false,
    perMessageDeflate: false,
    maxPayload: limits.frame_bytes,
    maxFragments: limits.fragmentsMax,
    handleProtocols: () => SUBPROTOCOL,
    WebSocket: SealpostSocket,
  })
  const emptied: (() => void)[] = []
  let draining = false
  let closed: Promise<void> | null = null

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const refusal = checkUpgrade(request, config.origins)
    if (refusal !== null) return refuseUpgrade(socket, refusal)
    if (draining) return refuseUpgrade(socket, { status: 503, says: 'the server is going away' })
    if (outbound.bytes > limits.queueBytesMax) return refuseUpgrade(socket, { status: 503, says: 'the server has no room now' })
    const peer = socket as Socket
    const seat = seats.take(addresses.limitedAddress(peer.remoteAddress, request.headers))
    if (seat === null) return refuseUpgrade(socket, { status: 429, says: 'too many connections from this address' })
    // given back also when the handshake of the WebSocket fails
    socket.once('close', () => seat.leave())
    sockets.handleUpgrade(request, socket, head, (ws) => {
      const run = createSessionRun(ws, peer, session, now())
      runs.set(run, seat)
      run.input({ is: 'opened' })
    })
  }

  // ---- clocks

  const clocks = [
    setInterval(() => {
      const at = now()
      for (const run of runs.keys()) run.tick(at)
    }, limits.tickMs),
    setInterval(() => track(headRound()), limits.headRoundMs),
    setInterval(() => track(presence.flush().catch(failed)), limits.touchMs),
  ]
  for (const clock of clocks) clock.unref()
  let rounding = false

  /** Compares what sessions know with the store: a hint may have been lost, or the store been restored to an earlier day. */
  async function headRound(): Promise<void> {
    const user_nos = presence.user_nos()
    if (rounding || user_nos.length === 0) return
    rounding = true
    try {
      const before = new Map([...runs.keys()].map((run) => [run, run.place]))
      const heads = await store.readHeads(user_nos)
      for (const [run, place] of before) {
        const head = place === null ? undefined : heads.get(place.user_no)
        if (place === null) continue
        if (head === undefined) {
          run.input({ is: 'hint', hint: { is: 'deleted' } })
          continue
        }
        // what was sent before the question cannot be above the answer, unless the store lost it
        const lost = head.position < place.position || head.log_seq < place.log_seq
        run.input(lost || place.history_id !== store.history_id ? { is: 'restored' } : { is: 'head', ...head })
      }
    } catch (error) {
      failed(error)
    } finally {
      rounding = false
    }
  }

  async function exclusively<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = queues.get(key) ?? Promise.resolve()
    const mine = before.then(work, work)
    queues.set(key, mine)
    try {
      return await mine
    } finally {
      if (queues.get(key) === mine) queues.delete(key)
    }
  }

  function track(work: Promise<void>): void {
    const tracked = work
      .catch((error: unknown) => logger.error({ err: error }, 'work of the gateway failed'))
      .finally(() => working.delete(tracked))
    working.add(tracked)
  }

  async function drain(): Promise<void> {
    draining = true
    if (runs.size === 0) return
    const gone = new Promise<void>((resolve) => emptied.push(resolve))
    for (const run of runs.keys()) run.input({ is: 'drain', retry_after_ms: Math.floor(random() * limits.drainSpreadMs) })
    const patience = Promise.withResolvers<void>()
    const timer = setTimeout(patience.resolve, limits.drainMs)
    await Promise.race([gone, patience.promise])
    clearTimeout(timer)
  }

  async function closeAll(): Promise<void> {
    draining = true
    for (const { server, upgrade: listener } of attached.splice(0)) server.off('upgrade', listener)
    const gone = runs.size === 0 ? Promise.resolve() : new Promise<void>((resolve) => emptied.push(resolve))
    for (const run of runs.keys()) run.terminate()
    await gone
    for (const clock of clocks) clearInterval(clock)
    await inbox.idle()
    while (working.size > 0) await Promise.all(working)
    await presence.flush().catch(failed)
    sockets.close()
  }

  return {
    attach(server) {
      attached.push({ server, upgrade })
      server.on('upgrade', upgrade)
    },
    drain,
    close() {
      closed ??= closeAll()
      return closed
    },
    requireRekey() {
      for (const run of runs.keys()) run.input({ is: 'rekey_due', reason: 'policy' })
    },
    stats: () => {
      const { bytes, batches, events } = inbox.stats()
      return {
        sockets: runs.size,
        users_online: presence.size(),
        queue_bytes: bytes,
        outbound_bytes: outbound.bytes,
        events_stored: events,
        batches,
      }
    },
  }
}

/**
 * What `ws` itself finds wrong is closed as the protocol says, not as RFC 6455 §7.4.1 has it: an oversized frame with 4413,
 * anything else that is no message with 4451. Only there is a code given without a reason.
 */
class SealpostSocket extends WebSocket {
  override close(code?: number, data?: string | Buffer): void {
    super.close(data === undefined && code !== undefined ? (WRONG_MESSAGE.get(code) ?? code) : code, data)
  }
}

/** Protocol error, not UTF-8, too many pieces, too big. */
const WRONG_MESSAGE = new Map([
  [1002, CLOSE.bad_frame.code],
  [1007, CLOSE.bad_frame.code],
  [1008, CLOSE.bad_frame.code],
  [1009, CLOSE.too_large.code],
])

/** 0 ≤ x < 1. */
function random(): number {
  return new DataView(nodeCrypto.random(4).buffer).getUint32(0) / 2 ** 32
}
