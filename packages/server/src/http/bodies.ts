/** Shapes of the REST bodies (protocol.md §10). What is inside signed bodies is checked by the protocol package. */
import { LIMITS } from '@sealpost/protocol'
import { z } from 'zod'

const base64url = (max: number) =>
  z
    .string()
    .max(max)
    .regex(/^[A-Za-z0-9_-]*$/)

export const signedObject = z.object({ body: base64url(98_304), sig: base64url(86).length(86) })

export const appendLogBody = signedObject.extend({
  boxes: z.record(z.string().max(36), base64url(2_048)).refine((boxes) => Object.keys(boxes).length <= 64),
  proof: signedObject,
  invite: z.string().max(256).optional(),
  repair: z.boolean().optional(),
})

export const waitQuery = z.object({ wait: z.coerce.number().int().min(0).max(LIMITS.pairingWaitSeconds).default(0) })
