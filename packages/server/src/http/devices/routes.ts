/**
 * Devices over REST (protocol.md §10): what the device log says of them, and who is connected. A change is a signed entry, judged
 * and appended as on the socket; the token says who asks and gives no right to change anything (R01, G23).
 */
import { decodeLogBody, decodeLogFrame, decodeWireEntry, equalBytes, fromBase64url, type LogBody, toBase64url } from '@sealpost/protocol'
import { createHash } from 'node:crypto'
import type { AccountStore, AppendResult, Bus, DeviceSummary, LogStore, SessionStore, Store } from '../../ports/store.ts'
import { appendAndTell } from '../../relay/sessions/log-append.ts'
import { showPresence } from '../../relay/sessions/presence.ts'
import type { Answer, Caller, RouteAnswers, RouteCall } from '../call.ts'
import { logRefusal } from '../log-refusal.ts'
import type { DEVICE_CONTRACTS } from './contracts.ts'

type Call<N extends keyof typeof DEVICE_CONTRACTS> = RouteCall<typeof DEVICE_CONTRACTS, N>

export type DeviceRouteDeps = {
  store: AccountStore & Pick<LogStore, 'appendEntry' | 'readEntries'> & Pick<SessionStore, 'readPresence'> & Pick<Store, 'history_id'>
  bus: Pick<Bus, 'publish'>
}

type ChangeCall = Call<'rename_device'> | Call<'revoke_device'>

const ETAG_BYTES = 16
const NOT_FOUND = { problem: { code: 'not_found' } } as const

export function createDeviceRoutes(deps: DeviceRouteDeps): RouteAnswers<typeof DEVICE_CONTRACTS> {
  const { store } = deps
  const show = (caller: Caller, { device_id, ...rest }: DeviceSummary) => ({
    device_id,
    ...rest,
    this_device: device_id === caller.device_id,
  })

  async function change(call: ChangeCall, type: LogBody['type']): Promise<Answer> {
    const { caller, params, body, request_id, address } = call
    const seen = await store.readDevice(caller.user_no, params.device_id)
    if (seen === null) return NOT_FOUND
    const wanted = call.headers['if-match']
    if (wanted !== undefined && !matches(wanted, etagOf(seen)) && !(await isRepeated(call)))
      return { problem: { code: 'precondition_failed' } }
    const entry = decodeWireEntry(body)
    const claimed = decodeLogBody(decodeLogFrame(entry.body))
    if (claimed.user_id !== caller.user_id) return { problem: { code: 'forbidden', detail: 'the entry is for another account' } }
    if (claimed.type !== type || !concerns(claimed, params.device_id))
      return { problem: { code: 'invalid_entry', detail: `the entry is not a ${type} of this device and no other` } }
    const request = {
      user_id: caller.user_id,
      entry,
      boxes: body.boxes,
      repair: false,
      allow_genesis: false,
      origin: { request_id, address },
    }
    const result: AppendResult = await appendAndTell(store, deps.bus, request)
    if (!result.ok) return { problem: logRefusal(result) }
    const device = await store.readDevice(caller.user_no, params.device_id)
    if (device === null) return NOT_FOUND
    return {
      json: { log_seq: result.log_seq, log_head: toBase64url(result.log_head), device: show(caller, device) },
      etag: etagOf(device),
    }
  }

  return {
    list_devices: async ({ caller, query }) => {
      const [devices, user] = await Promise.all([
        store.listDevices(caller.user_no, query.revoked === 'true'),
        store.readLogHead(caller.user_no),
      ])
      // it was there when the token was looked at
      if (user === null) return { problem: { code: 'unauthorized' } }
      return { json: { devices: devices.map((row) => show(caller, row)), log_seq: user.log_seq, log_head: toBase64url(user.log_head) } }
    },
    read_device: async ({ caller, params }) => {
      const device = await store.readDevice(caller.user_no, params.device_id)
      return device === null ? NOT_FOUND : { json: show(caller, device), etag: etagOf(device) }
    },
    rename_device: (call) => change(call, 'rename_device'),
    revoke_device: (call) => change(call, 'revoke_device'),
    read_connection_status: async ({ caller }) => {
      const devices = (await store.readPresence(caller.user_no)).map(showPresence)
      return { json: { online: devices.filter((device) => device.online).length, devices } }
    },
  }

  /** The entry is there already: the answer to it was lost, and the device is no longer what the caller saw because of it. */
  async function isRepeated({ caller, body }: ChangeCall): Promise<boolean> {
    const { log_seq } = decodeLogFrame(fromBase64url(body.body))
    const stored = (await store.readEntries(caller.user_no, 'root', log_seq, 1)).entries[0]
    return stored?.log_seq === log_seq && equalBytes(stored.body, fromBase64url(body.body))
  }
}

/** Of what is signed: presence comes and goes without changing it. */
function etagOf({ device_id, name, device_type, added_log_seq, revoked_log_seq }: DeviceSummary): string {
  const signed = JSON.stringify([device_id, name, device_type, added_log_seq, revoked_log_seq])
  return createHash('sha256').update(signed).digest().subarray(0, ETAG_BYTES).toString('base64url')
}

/** RFC 9110 §13.1.1, strong comparison. */
function matches(given: string, etag: string): boolean {
  return given.trim() === '*' || given.split(',').some((tag) => tag.trim() === `"${etag}"`)
}

function concerns(body: LogBody, device_id: string): boolean {
  if (body.type === 'rename_device') return body.rename.device_id === device_id
  return body.type === 'revoke_device' && body.revoked.length === 1 && body.revoked[0]?.device_id === device_id
}
