/** THE list of contracts: one for each row of `routes.ts`. */
import type { RouteName } from '@sealpost/protocol'
import { AUTH_CONTRACTS } from './auth/contracts.ts'
import type { Contract } from './contract.ts'
import { DEVICE_CONTRACTS } from './devices/contracts.ts'
import { DOCS_CONTRACTS } from './docs/contracts.ts'
import { EVENT_CONTRACTS } from './events/contracts.ts'
import { EXPORT_CONTRACTS } from './export/contracts.ts'
import { LOG_CONTRACTS } from './log/contracts.ts'
import { PAIRING_CONTRACTS } from './pairing/contracts.ts'
import { STATUS_CONTRACTS } from './status/contracts.ts'
import { USER_CONTRACTS } from './user/contracts.ts'

export const CONTRACTS = {
  ...STATUS_CONTRACTS,
  ...AUTH_CONTRACTS,
  ...DEVICE_CONTRACTS,
  ...USER_CONTRACTS,
  ...EXPORT_CONTRACTS,
  ...LOG_CONTRACTS,
  ...EVENT_CONTRACTS,
  ...PAIRING_CONTRACTS,
  ...DOCS_CONTRACTS,
} as const satisfies Record<RouteName, Contract>
