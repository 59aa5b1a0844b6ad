/** `sealpost serve`: a relay in the foreground. It listens to signals itself. */
import type { Command } from 'commander'
import { examples } from '../command.ts'
import { EXIT } from '../exit-codes.ts'

type Options = { host?: string; port?: string; data?: string; workers?: string; databaseUrl?: string; redisUrl?: string }

export function addServe(program: Command): void {
  program
    .command('serve')
    .summary('run a relay')
    .description('Runs a relay on an embedded PostgreSQL, or on your own with --database-url.')
    .option('--host <address>', 'address to listen on (default 127.0.0.1)')
    .option('--port <number>', 'port to listen on; 0 takes a free one (default 8787)')
    .option('--data <dir>', 'data folder (default ./sealpost-data)')
    .option('--workers <number>', 'processes that serve, at most one per core (default 1)')
    .option('--database-url <url>', 'an external PostgreSQL, 14 to 18; also DATABASE_URL')
    .option('--redis-url <url>', 'Redis, by which several nodes hear of each other at once; also REDIS_URL')
    .addHelpText(
      'after',
      examples(
        ['sealpost serve', 'http://127.0.0.1:8787, data in ./sealpost-data'],
        ['sealpost serve --port 0 --data /var/lib/sealpost', 'a free port, another folder'],
        ['sealpost serve --workers 4', 'four processes, for a machine with four cores'],
        ['DATABASE_URL=postgres://… sealpost serve --host 0.0.0.0', 'on your own PostgreSQL'],
      ),
    )
    .action(async (options: Options) => {
      const { serve } = await import('@sealpost/server')
      await serve({
        flags: {
          ...(options.host === undefined ? {} : { host: options.host }),
          ...(options.port === undefined ? {} : { port: options.port }),
          ...(options.data === undefined ? {} : { data: options.data }),
          ...(options.workers === undefined ? {} : { workers: options.workers }),
          ...(options.databaseUrl === undefined ? {} : { database_url: options.databaseUrl }),
          ...(options.redisUrl === undefined ? {} : { redis_url: options.redisUrl }),
        },
      })
      process.exitCode = EXIT.ok.code
    })
}
