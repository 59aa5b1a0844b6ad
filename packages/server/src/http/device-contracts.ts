/** Contracts of this area. */
import type { Contract } from './contract.ts'

export const DEVICE_CONTRACTS = {} as const satisfies Record<string, Contract>
