/** The server's end of a session as a test scripts it: a real handshake and record layer over sockets in memory, and no rules of its own. */
import {
  answerClientHello,
  type Bytes,
  type ClientAuthBody,
  type ClientMessage,
  decodeClientMessage,
  encodeMessage,
  helloOf,
  LIMITS,
  OpenCipher,
  readClientAuth,
  type RekeyBasis,
  SealCipher,
  type ServerHead,
  type ServerHeadOf,
  type SessionKeys,
  toBase64url,
  utf8,
  utf8Decode,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { Connection, Transport, TransportHandlers } from '../../../client/src/ports.ts'
import { NOW_MS } from '../clients/honest-events.ts'

export const SERVER_SEED = new Uint8Array(32).fill(3)
export const SERVER_KEY = nodeCrypto.ed25519Public(SERVER_SEED)

export const HISTORY = toBase64url(new Uint8Array(32).fill(1))

type Established = Partial<ServerHeadOf<'session_established'>>

/** One socket of the client. */
export type ScriptedSession = {
  readonly auth: ClientAuthBody | null
  /** Messages of the client after its client_auth. */
  readonly received: ClientMessage[]
  readonly paused: boolean
  /** Code of the client's close; null while it is open. */
  readonly closed: number | null
  send(head: ServerHead, body?: Bytes): void
  establish(o?: Established): void
  /** Answers a rekey hello; frames of the new keys leave with `sealNew`. */
  answerRekey(): Promise<void>
  sendNew(head: ServerHead): void
  /** The server closes. */
  close(code: number): void
}

export type ScriptedServer = Transport & {
  readonly sessions: ScriptedSession[]
  readonly last: ScriptedSession
  /** What the next server_hello is signed with. */
  seed: Bytes
  /** The key that it names; null: the one that it signs with. */
  named: Bytes | null
  /** Called with each session once its client_auth is there. */
  onAuth: (session: ScriptedSession) => void
  /** Called with each message of the client after it. */
  onMessage: (session: ScriptedSession, message: ClientMessage) => void
}

export function createScriptedServer(): ScriptedServer {
  const sessions: ScriptedSession[] = []
  const server: ScriptedServer = {
    sessions,
    get last() {
      const session = sessions.at(-1)
      if (session === undefined) throw new Error('nobody connected')
      return session
    },
    seed: SERVER_SEED,
    named: null,
    onAuth: (session) => session.establish(),
    onMessage: () => undefined,
    connect(_url, _protocols, handlers) {
      const { session, socket } = createSession(server, handlers)
      sessions.push(session)
      queueMicrotask(() => handlers.opened())
      return socket
    },
  }
  return server
}

function createSession(server: ScriptedServer, handlers: TransportHandlers): { session: ScriptedSession; socket: Connection } {
  let keys: SessionKeys | null = null
  let next: SessionKeys | null = null
  let seal: SealCipher | null = null
  let sealNext: SealCipher | null = null
  let open: OpenCipher | null = null
  let auth: ClientAuthBody | null = null
  let hello: Bytes | null = null
  let session_id = ''
  let paused = false
  let closed: number | null = null
  let held: Bytes[] = []
  const received: ClientMessage[] = []

  const deliver = (frame: Bytes): void => {
    if (closed !== null) return
    if (paused) held.push(frame)
    else handlers.binary(frame)
  }

  const session: ScriptedSession = {
    get auth() {
      return auth
    },
    received,
    get paused() {
      return paused
    },
    get closed() {
      return closed
    },
    send(head, body) {
      if (seal !== null) deliver(seal.seal(encodeMessage(head, body)) as Bytes)
    },
    establish(o = {}) {
      const { limits, ...more } = o
      session_id = o.session_id ?? `session-${server.sessions.length}`
      session.send({
        type: 'session_established',
        session_id,
        gen: keys?.gen ?? 0,
        log_seq: auth?.log_seq ?? 0,
        log_head: auth?.log_head ?? toBase64url(new Uint8Array(32)),
        history_id: HISTORY,
        head_position: 0,
        floor: 0,
        mode: 'live',
        last_device_seq: auth?.last_device_seq ?? 0,
        features: [],
        limits: limits ?? {
          frame_bytes: LIMITS.frameBytesMax,
          payload_bytes: LIMITS.payloadDataBytesMax,
          batch_events: LIMITS.batchEventsMax,
          inflight_events: LIMITS.inflightEventsMax,
          inflight_bytes: LIMITS.inflightBytesMax,
          replay_events: LIMITS.replayEventsMax,
        },
        rekey_after_s: 3_600,
        rekey_after_frames: 1_048_576,
        ...more,
      })
    },
    async answerRekey() {
      if (hello === null || keys === null) throw new Error('no rekey hello came')
      const basis: RekeyBasis = { session_id, prev_th: keys.th, gen: keys.gen + 1 }
      const answer = await answerClientHello(nodeCrypto, hello, identityOf(server), NOW_MS, basis)
      next = answer.keys
      sealNext = new SealCipher(nodeCrypto.aesGcmKey(next.s2c), next.gen)
      session.send(answer.hello)
    },
    sendNew(head) {
      if (sealNext !== null) deliver(sealNext.seal(encodeMessage(head)) as Bytes)
    },
    close(code) {
      if (closed !== null) return
      closed = code
      handlers.closed(code, '')
    },
  }

  const socket: Connection = {
    sendText(text) {
      void answerClientHello(nodeCrypto, utf8(text), identityOf(server), NOW_MS).then((answer) => {
        keys = answer.keys
        seal = new SealCipher(nodeCrypto.aesGcmKey(keys.s2c), keys.gen)
        open = new OpenCipher(nodeCrypto.aesGcmKey(keys.c2s), keys.gen)
        if (closed === null) handlers.text(utf8Decode(utf8(JSON.stringify(answer.hello))))
      })
    },
    sendBinary(frame) {
      if (next !== null && frame[0] === next.gen && open !== null) {
        open = new OpenCipher(nodeCrypto.aesGcmKey(next.c2s), next.gen)
        keys = next
        next = null
      }
      if (open === null) throw new Error('a sealed frame before the handshake')
      const bytes = open.open(frame) as Bytes
      const message = decodeClientMessage(bytes)
      if (message.head.type === 'client_hello') hello = helloOf(bytes)
      if (message.head.type === 'client_auth' && auth === null) {
        auth = readClientAuth(message.head)
        server.onAuth(session)
        return
      }
      received.push(message)
      // as a network does: never before the call that sent it has returned
      queueMicrotask(() => server.onMessage(session, message))
    },
    buffered_amount: 0,
    pause() {
      paused = true
    },
    resume() {
      paused = false
      const frames = held
      held = []
      for (const frame of frames) deliver(frame)
    },
    close(code = 1000) {
      if (closed !== null) return
      closed = code
      queueMicrotask(() => handlers.closed(code, ''))
    },
  }
  return { session, socket }
}

function identityOf({ seed, named }: ScriptedServer): { sign_seed: Bytes; server_key: Bytes } {
  return { sign_seed: seed, server_key: named ?? nodeCrypto.ed25519Public(seed) }
}
