/** The relay as a library: what `sealpost serve` and tests of other packages use. */
export { type Config, readConfig } from './config.ts'
export type { Log } from './log.ts'
export { serve, type ServeOptions } from './serve.ts'
export { type ConfigFlags, VARIABLES } from './variables.ts'
export { type RunningServer, type ServerOptions, startServer } from './server.ts'
