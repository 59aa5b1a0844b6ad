/**
 * THE list of rates (protocol.md §9, R12): how many of what, for whom, in which time. Each has a variable of the configuration,
 * `SEALPOST_LIMIT_` and its name. What is bounded at once and not over time (sockets, queues, events in flight) is in
 * `relay/limits.ts`.
 */
import { LIMITS } from '@sealpost/protocol'

export type RateRow = {
  /** What the key of a count is. */
  per: 'address' | 'user' | 'device' | 'mailbox' | 'admin'
  points: number
  /** Seconds. */
  duration: number
  says: string
}

const HOUR = 3_600

export const RATES = {
  rest_address: { per: 'address', points: LIMITS.restPerAddressPerMinute, duration: 60, says: 'REST requests' },
  rest_user: { per: 'user', points: 1_200, duration: 60, says: 'REST requests' },
  rest_device: { per: 'device', points: 600, duration: 60, says: 'REST requests' },
  handshake_address: { per: 'address', points: 600, duration: 60, says: 'connections that are opened' },
  handshake_user: { per: 'user', points: 1_200, duration: 60, says: 'handshakes' },
  handshake_device: { per: 'device', points: 240, duration: 60, says: 'handshakes, and sessions taken over REST' },
  genesis: { per: 'address', points: LIMITS.genesisPerAddressPerHour, duration: HOUR, says: 'new accounts' },
  repair: { per: 'user', points: LIMITS.repairsPerHour, duration: HOUR, says: 'entries that a repair brought back' },
  repair_address: { per: 'address', points: LIMITS.repairsPerHour, duration: HOUR, says: 'repairs that were posted' },
  mailbox: { per: 'mailbox', points: LIMITS.pairingGetsPerMinute, duration: 60, says: 'reads of a pairing mailbox' },
  mailbox_miss: { per: 'address', points: 600, duration: HOUR, says: 'asks for pairing slots that are not there' },
  offer: { per: 'user', points: LIMITS.pairingOffersPerUserPerHour, duration: HOUR, says: 'new pairing mailboxes' },
  admin_address: { per: 'address', points: 120, duration: 60, says: 'requests to the listener of admins' },
  admin: { per: 'admin', points: 1_200, duration: 60, says: 'requests' },
  export: { per: 'user', points: 20, duration: HOUR, says: 'exports' },
} as const satisfies Record<string, RateRow>

export type RateRule = keyof typeof RATES

/** The variable of a rule. */
export function rateVariable<R extends RateRule>(rule: R): `SEALPOST_LIMIT_${Uppercase<R>}` {
  return `SEALPOST_LIMIT_${rule.toUpperCase()}` as `SEALPOST_LIMIT_${Uppercase<R>}`
}
