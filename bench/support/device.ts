/**
 * A device of the load: the protocol over one socket after another, as cheap as can be, so that the figures are the relay's. Events are
 * copies of one record with new numbers; what arrives is opened and counted, never verified. `device_seq`, unacked events and cursor
 * outlive a socket.
 *
 * Invariant: what is acked, and what is delivered of the one other device of the user that sends, is checked to be the next number and
 * no other; messages are checked to continue at the one before. What is not so is a fault, told by its name.
 */
import {
  type Bytes,
  bytesToUuid,
  type Cursor,
  createClientAuth,
  decodeHello,
  encodeMessage,
  encodeRecord,
  finishServerHello,
  fromBase64url,
  OpenCipher,
  readU64,
  SealCipher,
  type ServerHead,
  type ServerHeadOf,
  startHandshake,
  utf8Decode,
  viewOf,
  writeU64,
} from '@sealpost/protocol'
import { nodeCrypto, type SyncAesGcmKey } from '@sealpost/protocol/node'
import { WebSocket } from 'ws'

/** Keys in base64url; `user` counts from 0. */
export type DeviceIdentity = { user: number; user_id: string; device_id: string; sign_seed: string; log_seq: number; log_head: string }

export type DeviceListener = {
  acked(device_seq: number, at: number): void
  delivered(device_seq: number, at: number): void
  /** A message with records of others was read. */
  message(): void
  fault(what: string): void
  /** A session ended that was live. */
  lost(device: Device): void
}

export type DeviceOptions = { identity: DeviceIdentity; server_key: Bytes; payload_bytes: number; listener: DeviceListener }

/** `refused`: the upgrade was answered with something else than a socket. */
export type Connected = 'live' | 'refused' | 'failed'

export type Device = {
  readonly identity: DeviceIdentity
  /** Resolves when the session is live: all that was missed has come. */
  connect(url: string): Promise<Connected>
  /** The next events, in one message. */
  send(count: number): void
  /** Reads nothing more. */
  stall(): void
  close(): Promise<void>
  readonly live: boolean
  readonly stalled: boolean
  readonly sent_seq: number
  readonly acked_seq: number
  /** Of the other device that sends. */
  readonly heard_seq: number
}

type Channel = { ws: WebSocket; sealer: SealCipher<SyncAesGcmKey>; opener: OpenCipher<SyncAesGcmKey> }

const STEP_MS = 5_000
const PAGE_EVENTS = 1_000
const PAGES = 32
const RESEND_MS = 500
const TOGETHER_MAX = 64
const EVENT_HEAD = encodeMessage({ type: 'event' })

/** Offsets in a record without and with what the server adds (protocol.md §3). */
const AT = { event_id: 5, counter: 17, device_seq: 37 } as const
const SERVED = { received_at: 21, event_id: 29, device_id: 45, device_seq: 61 } as const
const ACK_ROW_BYTES = 24

export function createDevice({ identity, server_key, payload_bytes, listener }: DeviceOptions): Device {
  const sign_seed = fromBase64url(identity.sign_seed, 32)
  const template = makeTemplate(identity, payload_bytes)
  const own_id = template.subarray(21, 37)
  const unacked = new Map<number, Bytes>()
  let channel: Channel | null = null
  let live = false
  let stalled = false
  let sent_seq = 0
  let acked_seq = 0
  let heard_seq = 0
  let told = 0
  let history_id: string | null = null
  let last: { event_id: string; received_at: number } | null = null
  let lastRecord: Bytes | null = null

  // ---- out

  function write(message: Bytes): void {
    if (channel !== null && channel.ws.readyState === WebSocket.OPEN) channel.ws.send(channel.sealer.seal(message))
  }

  function makeMessage(first: number, count: number): Bytes {
    const message = new Uint8Array(EVENT_HEAD.length + count * template.length)
    const view = viewOf(message)
    const now = Date.now()
    message.set(EVENT_HEAD)
    for (let i = 0; i < count; i++) {
      const at = EVENT_HEAD.length + i * template.length
      message.set(template, at)
      view.setUint16(at + AT.event_id, Math.floor(now / 2 ** 32))
      view.setUint32(at + AT.event_id + 2, now >>> 0)
      view.setUint32(at + AT.counter, first + i)
      writeU64(view, at + AT.device_seq, first + i)
      unacked.set(first + i, message.subarray(at, at + template.length))
    }
    return message
  }

  /** The same bytes again; those that are stored are acked again. */
  function resend(): void {
    const records = [...unacked.values()]
    for (let from = 0; from < records.length; from += TOGETHER_MAX) {
      write(encodeMessage({ type: 'event' }, Buffer.concat(records.slice(from, from + TOGETHER_MAX))))
    }
  }

  // ---- in

  function settle(upto: number, at: number): void {
    for (; acked_seq < upto; listener.acked(acked_seq, at)) {
      acked_seq += 1
      unacked.delete(acked_seq)
    }
  }

  function takeAcks(body: Bytes, at: number): void {
    const view = viewOf(body)
    for (let row = 0; row < body.length; row += ACK_ROW_BYTES) {
      const device_seq = readU64(view, row)
      if (device_seq > acked_seq + 1) listener.fault('ack_gap')
      settle(device_seq, at)
    }
  }

  function takeRecords(body: Bytes, { after, upto }: { after: number; upto: number }, tip: ServerHeadOf<'event'>['tip'], at: number): void {
    if (after !== told) listener.fault('cursor_gap')
    told = upto
    const view = viewOf(body)
    const known_seq = heard_seq
    let start = 0
    for (let next = 0; next < body.length; ) {
      start = next
      next += 4 + view.getUint32(start)
      if (isOwn(body, start + SERVED.device_id)) continue
      const device_seq = readU64(view, start + SERVED.device_seq)
      if (device_seq !== heard_seq + 1) listener.fault(device_seq <= heard_seq ? 'delivered_twice' : 'delivery_gap')
      heard_seq = Math.max(heard_seq, device_seq)
      listener.delivered(device_seq, at)
    }
    if (heard_seq > known_seq) listener.message()
    lastRecord = body.length > 0 && tip === undefined ? body.subarray(start) : null
    last = tip ?? null
  }

  function isOwn(body: Bytes, at: number): boolean {
    for (let i = 0; i < 16; i++) if (body[at + i] !== own_id[i]) return false
    return true
  }

  function takeMessage(plaintext: Bytes, opened: (mode: string) => void): void {
    const at = performance.now()
    const length = viewOf(plaintext).getUint32(0)
    const head = JSON.parse(Buffer.from(plaintext.buffer, plaintext.byteOffset + 4, length).toString('latin1')) as ServerHead
    const body = plaintext.subarray(4 + length)
    switch (head.type) {
      case 'event':
        return takeRecords(body, head, head.tip, at)
      case 'ack':
        return takeAcks(body, at)
      case 'session_established':
        history_id = head.history_id ?? history_id
        // what was sent before and is stored is as good as acked
        settle(Math.min(head.last_device_seq ?? 0, sent_seq), at)
        return opened(head.mode ?? '')
      case 'replay_response':
        takeRecords(body, head, head.tip, at)
        if (head.has_more) return askPages()
        return opened('live')
      case 'nack':
        // what is refused for a while is sent again; nothing else may be refused
        if (head.code === 'unavailable' || head.code === 'rate_limited') setTimeout(resend, head.retry_after_ms ?? RESEND_MS)
        else listener.fault(`nack_${head.code}`)
        return
      case 'error':
        return listener.fault(`error_${head.code}`)
      case 'reset':
        return listener.fault(`reset_${head.reason}`)
      default:
    }
  }

  function askPages(): void {
    write(encodeMessage({ type: 'replay_request', id: 1, last_ack_device_seq: acked_seq, limit: PAGE_EVENTS, pages: PAGES }))
  }

  // ---- connection

  function cursor(): Cursor {
    if (lastRecord !== null) {
      const view = viewOf(lastRecord)
      last = { event_id: bytesToUuid(lastRecord, SERVED.event_id), received_at: readU64(view, SERVED.received_at) }
      lastRecord = null
    }
    if (told === 0 || last === null)
      return { position: told, event_id: null, received_at: null, history_id: told === 0 ? null : history_id }
    return { position: told, ...last, history_id }
  }

  function connect(url: string): Promise<Connected> {
    const ws = new WebSocket(`${url.replace(/^http/, 'ws')}/api/socket`, ['sealpost.1'], {
      perMessageDeflate: false,
      skipUTF8Validation: true,
      maxPayload: 16 * 1_048_576,
    })
    ws.binaryType = 'nodebuffer'
    return new Promise((resolve) => {
      const late = setTimeout(() => ws.terminate(), 2 * STEP_MS)
      const end = (how: Connected): void => {
        clearTimeout(late)
        resolve(how)
      }
      ws.on('unexpected-response', (request) => {
        request.destroy()
        end('refused')
      })
      ws.on('error', () => {})
      ws.on('close', () => {
        end('failed')
        if (channel?.ws !== ws) return
        const wasLive = live
        channel = null
        live = false
        if (wasLive) listener.lost(device)
      })
      ws.once('open', () => {
        handshake(ws, () => {
          live = true
          end('live')
        }).catch((error: unknown) => {
          listener.fault(`handshake_${String(error)}`)
          ws.terminate()
        })
      })
    })
  }

  async function handshake(ws: WebSocket, isLive: () => void): Promise<void> {
    const state = await startHandshake(nodeCrypto)
    ws.send(utf8Decode(state.hello))
    const hello = await new Promise<Buffer | null>((resolve) => {
      ws.once('message', resolve)
      ws.once('close', () => resolve(null))
    })
    if (hello === null) return
    const keys = await finishServerHello(nodeCrypto, state, decodeHello('server_hello', hello), server_key)
    const opener = new OpenCipher(nodeCrypto.aesGcmKey(keys.s2c), keys.gen)
    channel = { ws, sealer: new SealCipher(nodeCrypto.aesGcmKey(keys.c2s), keys.gen), opener }
    ws.on('message', (frame: Buffer) =>
      takeMessage(opener.open(frame), (mode) => {
        if (mode === 'replay') return askPages()
        isLive()
        resend()
      }),
    )
    const { user_id, device_id, log_seq, log_head } = identity
    const client = { name: 'bench', version: '0' }
    const body = { user_id, device_id, log_seq, log_head, cursor: cursor(), last_device_seq: acked_seq, features: [], client }
    write(encodeMessage(await createClientAuth(nodeCrypto, keys, sign_seed, body)))
  }

  const device: Device = {
    identity,
    connect,
    send(count) {
      const message = makeMessage(sent_seq + 1, count)
      sent_seq += count
      if (live) write(message)
    },
    stall() {
      stalled = true
      channel?.ws.pause()
    },
    async close() {
      const ws = channel?.ws
      live = false
      if (ws === undefined) return
      const closed = new Promise<void>((resolve) => ws.once('close', () => resolve()))
      ws.terminate()
      await closed
    },
    get live() {
      return live
    },
    get stalled() {
      return stalled
    },
    get sent_seq() {
      return sent_seq
    },
    get acked_seq() {
      return acked_seq
    },
    get heard_seq() {
      return heard_seq
    },
  }
  return device
}

/** A record as it stands on the wire, all but its numbers. */
function makeTemplate({ device_id, log_seq }: DeviceIdentity, payload_bytes: number): Bytes {
  return encodeRecord({
    server: null,
    event_id: '00000000-0000-7000-8000-000000000000',
    device_id,
    device_seq: 1,
    epoch: log_seq,
    ttl: null,
    prev_hash: nodeCrypto.random(32),
    stream_id: 'main',
    type: 'bench',
    sig: nodeCrypto.random(64),
    payload: nodeCrypto.random(payload_bytes),
    payload_hash: null,
  })
}
