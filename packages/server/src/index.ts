/** The relay as a library: what `sealpost serve` and tests of other packages use. */
export { type Config, readConfig } from './config/config.ts'
export type { Log } from './telemetry/log.ts'
export { CHECKS, diagnose, type DoctorOptions, type Finding } from './doctor/doctor.ts'
export { serve, type ServeOptions } from './serve.ts'
export { type ConfigFlags, VARIABLES } from './config/variables.ts'
export { type RunningServer, type ServerOptions, startServer } from './server.ts'
export { writeFirstOwner } from './admin/admins/first-owner.ts'
export { type AuditFault, type AuditHead, type AuditRow, verifyAudit } from './audit/chain.ts'
