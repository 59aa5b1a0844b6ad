/**
 * The gateway put together: upgrades become connections, connections sessions of the relay. Sockets are its own, and nothing
 * else is.
 *
 * Invariant: nothing of a closed gateway goes on: no timer, socket or store call.
 */
import { CLOSE } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocket, WebSocketServer } from 'ws'
import type { Config } from '../config/config.ts'
import type { Problem } from '../http/problems.ts'
import { requestIdOf, sendRawProblem } from '../http/raw-problem.ts'
import { createAddressRule } from '../limits/address.ts'
import type { Relay } from '../relay/relay.ts'
import { createSessionRun, type SessionDeps, type SessionRun } from '../relay/sessions/session-run.ts'
import type { Secrets } from '../data/secrets.ts'
import { createAuthenticator } from './authenticate.ts'
import { createConnection, type Shared } from './connection.ts'
import { GATEWAY_LIMITS, type GatewayLimits } from './limits.ts'
import { checkUpgrade, SUBPROTOCOL } from './upgrade.ts'

export type GatewayDeps = {
  relay: Relay
  secrets: Pick<Secrets, 'server_sign_seed' | 'server_key'>
  config: Pick<Config, 'origins' | 'trusted_proxies' | 'rekey_after_ms' | 'rekey_after_frames'>
  /** For what differs from the protocol's limits; those of the relay hold for its sockets too. */
  limits?: Partial<GatewayLimits>
}

export type Gateway = {
  /** Takes the upgrades of this HTTP server, until the relay drains. */
  attach(server: Server): void
  /** Ends what is left. Resolves when nothing of the gateway goes on; the relay closes after it. */
  close(): Promise<void>
  /** Every session is to renew its keys. */
  requireRekey(): void
}

const RETRY_MS = 5_000
const GOING: Problem = { code: 'unavailable', detail: 'the server is going away', retry_after_ms: RETRY_MS }
const FULL: Problem = { code: 'overloaded', retry_after_ms: RETRY_MS }
const TOO_MANY: Problem = { code: 'rate_limited', detail: 'too many connections from this address', retry_after_ms: RETRY_MS }

export function createGateway({ relay, secrets, config, ...options }: GatewayDeps): Gateway {
  const { rekey_after_ms, rekey_after_frames } = config
  const limits: GatewayLimits = { ...GATEWAY_LIMITS, ...relay.limits, rekey_after_ms, rekey_after_frames, ...options.limits }
  const { admission, outbound, encoder, seats, sessions } = relay
  const runs = new Set<SessionRun>()
  const emptied: (() => void)[] = []
  const attached: { server: Server; upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void }[] = []
  const shared: Shared = { crypto: nodeCrypto, limits, encoder, outbound }
  const session: SessionDeps = { ...relay, limits }
  const server = { sign_seed: secrets.server_sign_seed, server_key: secrets.server_key }
  const authenticator = createAuthenticator(nodeCrypto, relay.store, server)
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
  let closed: Promise<void> | null = null
  const isGoing = (): boolean => closed !== null || sessions.isDraining()

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const refuse = (problem: Problem): void => sendRawProblem(socket, problem, requestIdOf(request.headers['x-request-id']))
    const wrong = checkUpgrade(request, config.origins)
    if (wrong !== null) return refuse(wrong)
    if (isGoing()) return refuse(GOING)
    const busy_ms = relay.overloaded() ?? admission.turnAway()
    if (busy_ms !== null) return refuse({ code: 'overloaded', retry_after_ms: busy_ms })
    // a peer that leaves meanwhile is met by what follows
    socket.on('error', () => {})
    const address = addresses.limitedAddress((socket as Socket).remoteAddress, request.headers)
    relay.rates.take('handshake_address', address).then(
      (retry_after_ms) => {
        if (retry_after_ms !== null) return refuse({ ...TOO_MANY, retry_after_ms })
        // who asks too often from one address takes no room from others
        const herd_ms = admission.admit()
        if (herd_ms !== null) return refuse({ code: 'overloaded', retry_after_ms: herd_ms })
        const refused = seatPeer(request, socket as Socket, head, address)
        if (refused !== null) refuse(refused)
      },
      () => refuse(FULL),
    )
  }

  /** Null when the peer has its seat. */
  function seatPeer(request: IncomingMessage, peer: Socket, head: Buffer, address: string | null): Problem | null {
    const socket: Duplex = peer
    if (isGoing()) return GOING
    const seat = seats.take(address)
    if (seat === null) return TOO_MANY
    // given back also when the handshake of the WebSocket fails
    socket.once('close', () => seat.leave())
    sockets.handleUpgrade(request, socket, head, (ws) => {
      const run = createSessionRun(session, {
        attach(listener) {
          const outlet = createConnection(ws, peer, listener, shared, performance.now())
          const { sendText, expectKeys, useKeys } = outlet
          return { outlet, channel: { ...authenticator, sendText, expectKeys, useKeys } }
        },
        authenticated: () => seat.authenticated(),
        gone(ended) {
          seat.leave()
          runs.delete(ended)
          sessions.remove(ended)
          if (runs.size === 0) for (const wake of emptied.splice(0)) wake()
        },
      })
      runs.add(run)
      sessions.add(run)
      run.input({ is: 'opened' })
    })
    return null
  }

  async function closeAll(): Promise<void> {
    for (const { server: http, upgrade: listener } of attached.splice(0)) http.off('upgrade', listener)
    const gone = runs.size === 0 ? Promise.resolve() : new Promise<void>((resolve) => emptied.push(resolve))
    for (const run of runs) run.terminate()
    await gone
    sockets.close()
  }

  return {
    attach(http) {
      attached.push({ server: http, upgrade })
      http.on('upgrade', upgrade)
    },
    close() {
      closed ??= closeAll()
      return closed
    },
    requireRekey() {
      for (const run of runs) run.input({ is: 'rekey_due', reason: 'policy' })
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
