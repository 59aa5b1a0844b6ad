/** What the parts of the server need of a logger: pino's four levels. */
import type { BaseLogger } from 'pino'

export type Log = Pick<BaseLogger, 'debug' | 'info' | 'warn' | 'error'>
