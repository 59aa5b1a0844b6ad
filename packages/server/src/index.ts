/** The relay as a library: what `sealpost serve` and tests of other packages use. */
export { type Config, readConfig } from './config.ts'
export type { Log } from './log.ts'
export { CHECKS, diagnose, type DoctorOptions, type Finding } from './doctor/doctor.ts'
export { serve, type ServeOptions } from './serve.ts'
export { type ConfigFlags, VARIABLES } from './variables.ts'
export { type RunningServer, type ServerOptions, startServer } from './server.ts'
export { writeFirstOwner } from './admin/first-owner.ts'
export { type AuditFault, type AuditHead, type AuditRow, verifyAudit } from './audit/chain.ts'
