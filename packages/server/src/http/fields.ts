/** The scalar kinds of REST, as on the wire (protocol.md §1). */
import { LABEL, LIMITS } from '@sealpost/protocol'
import { z } from 'zod'
import { AUDIT_OUTCOMES } from '../audit/entry.ts'

/** base64url of exactly `bytes` bytes; whether it is canonical is judged where it is decoded. */
const base64urlOf = (bytes: number) => {
  const chars = Math.ceil((bytes * 4) / 3)
  return z.string().regex(new RegExp(`^[A-Za-z0-9_-]{${chars}}$`))
}

/** base64url of at most `chars` characters. */
export const base64url = (chars: number) =>
  z
    .string()
    .max(chars)
    .regex(/^[A-Za-z0-9_-]*$/)

/** 32 bytes: keys, hashes, user ids. */
export const key = base64urlOf(32)
/** 64 bytes. */
export const signature = base64urlOf(64)
/** 16 bytes. */
export const mailboxId = base64urlOf(16)
/** An HPKE box, 1168 bytes. */
export const box = base64urlOf(1_168)
/** Lower case, with dashes. */
export const uuid = z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/)
/** Of a device of the account that asks. */
export const deviceId = uuid.describe('A device of this account.')
/** A stream_id or an event type. */
export const label = z.string().regex(LABEL)
/** A JSON safe integer ≥ 0: counts, positions, times in ms. */
export const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
/** A whole number in a query string, written in one way only. */
export const countText = (min: number, max: number) =>
  z.preprocess((text) => (typeof text === 'string' && /^(0|[1-9]\d{0,15})$/.test(text) ? Number(text) : text), z.int().min(min).max(max))

/** A device assertion: its body is small. */
export const assertion = z.strictObject({ body: base64url(5_464), sig: signature })
const BOXES_MAX = 64
/** Boxes of a log entry, by `device_id` or `root`. */
export const boxes = z
  .record(z.string().regex(/^(root|[0-9a-f-]{36})$/), box)
  .refine((all) => Object.keys(all).length <= BOXES_MAX)
  // documents do not see into a refinement
  .meta({ maxProperties: BOXES_MAX })
/** An entry of the device log as it is posted. */
export const logEntry = z.strictObject({ body: base64url(Math.ceil((LIMITS.logBodyBytesMax * 4) / 3)), sig: signature, boxes })
/** The same as the server gives it out; `box` is that of whoever asks. */
export const storedEntry = z.strictObject({
  body: base64url(Math.ceil((LIMITS.logBodyBytesMax * 4) / 3)),
  sig: signature,
  box: box.nullable(),
})
/** Whether a device is connected, and when it last was. */
export const onlineDevice = z.strictObject({
  device_id: uuid,
  online: z.boolean(),
  last_seen: count.nullable(),
  suspended: z.boolean().optional().describe('True when an operator shut it out.'),
})

/** A row of the audit log, beside its place in the chain (docs/operations/audit.md). */
export const auditFields = {
  seq: count,
  at: count.describe('Time in ms.'),
  actor: z.string(),
  action: z.string(),
  outcome: z.enum(AUDIT_OUTCOMES),
  target: z.string().nullable(),
  request_id: z.string().nullable(),
  address: z.string().nullable(),
  detail: z.string().nullable().describe('JSON.'),
}
