/** THE list of contracts for operators: one for each row of `admin-routes.ts`. */
import type { AdminRouteName } from '@sealpost/protocol'
import type { Contract } from '../http/contract.ts'
import { DOCS_CONTRACTS } from '../http/docs/contracts.ts'
import { STATUS_CONTRACTS } from '../http/status/contracts.ts'
import { ADMIN_CONTRACTS } from './admins/contracts.ts'
import { AUDIT_CONTRACTS } from './audit/contracts.ts'
import { INVITE_CONTRACTS } from './invites/contracts.ts'
import { JOB_CONTRACTS } from './jobs/contracts.ts'
import { KEY_CONTRACTS } from './keys/contracts.ts'
import { SETTING_CONTRACTS } from './settings/contracts.ts'
import { SYSTEM_CONTRACTS } from './system/contracts.ts'
import { USER_CONTRACTS } from './users/contracts.ts'

export const CONTRACTS = {
  ...STATUS_CONTRACTS,
  // always served here
  read_openapi: { ...DOCS_CONTRACTS.read_openapi, problems: [] },
  read_docs: { ...DOCS_CONTRACTS.read_docs, problems: [] },
  read_docs_file: DOCS_CONTRACTS.read_docs_file,
  ...ADMIN_CONTRACTS,
  ...KEY_CONTRACTS,
  ...USER_CONTRACTS,
  ...AUDIT_CONTRACTS,
  ...SYSTEM_CONTRACTS,
  ...SETTING_CONTRACTS,
  ...INVITE_CONTRACTS,
  ...JOB_CONTRACTS,
} as const satisfies Record<AdminRouteName, Contract>
