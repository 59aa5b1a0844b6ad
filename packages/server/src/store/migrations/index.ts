/** All migrations, oldest first. One that was released never changes. Text in modules, so that the build carries it along. */
import { tables } from './0001-tables.ts'
import { ingest } from './0002-ingest.ts'
import { sessions } from './0003-sessions.ts'
import { tokens } from './0004-tokens.ts'
import { retentionFunctions } from './0005-retention-functions.ts'
import { usageRetention } from './0005-usage-retention.ts'
import { names } from './0006-names.ts'
import { operators } from './0007-operators.ts'
import { quotas } from './0007-quotas.ts'
import { nodes } from './0008-nodes.ts'

export type Migration = { version: number; name: string; sql: string }

export const MIGRATIONS: readonly Migration[] = [
  { version: 1, name: 'tables', sql: tables },
  { version: 2, name: 'ingest', sql: ingest },
  { version: 3, name: 'sessions', sql: sessions },
  { version: 4, name: 'tokens', sql: tokens },
  { version: 5, name: 'usage-retention', sql: usageRetention + retentionFunctions },
  { version: 6, name: 'names', sql: names },
  { version: 7, name: 'operators', sql: operators + quotas },
  { version: 8, name: 'nodes', sql: nodes },
]
