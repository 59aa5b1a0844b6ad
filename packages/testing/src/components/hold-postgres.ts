/** A process that holds an embedded PostgreSQL until it is killed: `node hold-postgres.ts DATA_DIR`; prints its pid as JSON. */
import { openDataFolder } from '../../../server/src/data/data-folder.ts'
import { startEmbeddedPostgres } from '../../../server/src/store/postgres/embedded-postgres.ts'

const data_dir = process.argv[2] ?? ''
await openDataFolder(data_dir)
const postgres = await startEmbeddedPostgres({ data_dir, test: true })
process.stdout.write(`${JSON.stringify({ pid: postgres.pid })}\n`)
setInterval(() => {}, 60_000)
