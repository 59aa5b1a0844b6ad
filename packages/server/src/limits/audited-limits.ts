/** Rates whose refusals are noted in the audit log (R12). */
import { isUuid } from '@sealpost/protocol'
import type { RateLimits } from './rate-limits.ts'
import { RATES } from './rules.ts'
import { adminName, type AuditEntry, deviceName } from '../audit/entry.ts'
import type { Audit } from '../audit/recorder.ts'

export function auditedLimits(limits: RateLimits, audit: Pick<Audit, 'note'>): RateLimits {
  return {
    ...limits,
    async take(rule, key, points) {
      const wait = await limits.take(rule, key, points)
      if (wait !== null && key !== null) audit.note({ actor: 'server', action: 'rate_limited', outcome: 'refused', ...whoOf(rule, key) })
      return wait
    },
  }
}

/** Whom it was about, as the audit log names them. */
function whoOf(rule: keyof typeof RATES, key: string): Pick<AuditEntry, 'target' | 'user_id' | 'origin' | 'detail'> {
  const detail = { limit: rule }
  const target = `limit:${rule}`
  switch (RATES[rule].per) {
    case 'address':
      return { target, detail, origin: { request_id: 'none', address: key } }
    case 'user':
      return { target, detail, user_id: key }
    case 'device':
      return { target: isUuid(key) ? deviceName(key) : target, detail }
    case 'admin':
      return { target: adminName(key), detail }
    case 'mailbox':
      // who knows a mailbox may use it: its id is kept nowhere
      return { target, detail }
  }
}
