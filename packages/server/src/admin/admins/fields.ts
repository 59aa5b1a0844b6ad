/** Parts of the contracts of admins, of which the command that writes the first owner uses the name too. */
import { ROLES } from '@sealpost/protocol'
import { z } from 'zod'

export const role = z.enum(ROLES)
/** How an admin is called: by people, in lists and in the audit log. The last four look like nothing, and count as letters. */
export const givenName = z
  .string()
  .min(1)
  .max(64)
  .regex(/^(?!.*[\u115F\u1160\u3164\uFFA0])[\p{L}\p{N}][\p{L}\p{N} ._@-]*$/u)
