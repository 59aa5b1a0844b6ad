/** `sealpost join`: makes this home a device of an account. */
import { Sealpost } from '@sealpost/client'
import type { DeviceType } from '@sealpost/protocol'
import { type Command, Option } from 'commander'
import { confirmPhrase } from '../check-phrase.ts'
import { type Context, endWith, examples } from '../command.ts'
import { readDeviceName } from '../device-name.ts'
import { advise, type Exit, UsageError } from '../exit-codes.ts'
import { isInteractive, say } from '../output.ts'
import { withHome } from '../session.ts'
import { DEVICE_TYPES } from './init.ts'

type Options = { server: string; name: string; type: DeviceType; yes?: boolean }

export function addJoin(program: Command): void {
  program
    .command('join')
    .summary('join an account with the code that sealpost pair shows')
    .description(
      'Makes this home a device of the account whose other device shows CODE. Capitals do not matter; O counts as 0, I and L as 1.',
    )
    .argument('<code>', 'the pairing code')
    .requiredOption('--server <url>', 'address of the relay')
    .requiredOption('--name <name>', 'name of this device')
    .addOption(new Option('--type <type>', 'type of this device').choices(DEVICE_TYPES).default('desktop'))
    .option('--yes', 'join without comparing the check phrase')
    .addHelpText(
      'after',
      examples(['sealpost join K7QM-3XWP-9RTB-D2FH --server https://relay.example --name phone', 'as it stands on the other screen']),
    )
    .action(endWith(join))
}

async function join({ home, signal }: Context, code: string, options: Options): Promise<Exit> {
  const skip = options.yes === true
  if (!skip && !isInteractive())
    throw new UsageError('join asks whether the check phrases are the same, which needs a terminal', 'use --yes to go on without comparing')
  const name = readDeviceName(options.name)
  return withHome<Exit>(home, async (opened) => {
    const sealpost = await Sealpost.join({
      home: opened,
      server: options.server,
      code,
      name,
      device_type: options.type,
      confirm: (phrase) => confirmPhrase(phrase, 'Does the other device show the same four signs?', skip, signal),
      signal,
    }).catch(advise({ not_found: { hint: 'a code ends after 10 minutes: start sealpost pair again for a new one' } }))
    say(`joined; this device is "${name}" (${sealpost.device_id})`)
    await sealpost.close()
    return 'ok'
  })
}
