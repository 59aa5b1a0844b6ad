/** What is written of the configuration for people: `docs/configuration.md` and `.env.example`, made of the list that is read. */
import { IPV6_NETWORKS } from '../limits/address.ts'
import { defaultText } from './shown-variable.ts'
import { type Variable, VARIABLES } from './variables.ts'

export function configurationPage(): string {
  const rows = Object.entries<Variable>(VARIABLES).map(([name, variable]) => {
    const flag = variable.flag === undefined ? '' : ` (\`--${variable.flag.replace('_', '-')}\`)`
    const standard = defaultText(variable)
    const cells = [
      `\`${name}\`${flag}`,
      variable.type,
      standard === null ? '–' : `\`${standard}\``,
      variable.unit ?? '–',
      variable.secret === true ? 'yes' : 'no',
      variable.says.replaceAll('|', '\\|'),
    ]
    return `| ${cells.join(' | ')} |`
  })
  const wider = IPV6_NETWORKS.filter(({ times }) => times > 1).map(({ bits, times }) => `a /${bits} has ${times} times as much`)
  return `# Configuration

A relay is configured by its environment; a few variables have a flag of \`sealpost serve\`, which goes before them. For each variable X, \`X_FILE\` may
name a file that holds the value, as orchestrators mount secrets; to set both is a mistake, and so is an empty file. An empty variable is one that is
not set. At a start all mistakes are listed at once, a \`SEALPOST_\` variable that does not exist is one of them, and no message repeats a value.

This page is made of [\`variables.ts\`](../packages/server/src/config/variables.ts) by \`node scripts/run.mjs docs\`.

| variable | takes | default | unit | secret | what it is |
|---|---|---|---|---|---|
${rows.join('\n')}

An address is an IPv4 address or an IPv6 /64. The networks around an IPv6 address are bounded with it, however many addresses are in them:
${wider.join(', ')}.

The bounds of the protocol itself, which devices are told of, are in [\`limits.ts\`](../packages/protocol/src/limits.ts).
`
}

export function envExample(): string {
  const rows = Object.entries<Variable>(VARIABLES).map(([name, variable]) => {
    const unit = variable.unit === undefined ? '' : ` [${variable.unit}]`
    return `# ${variable.says}${unit}\n#${name}=${defaultText(variable) ?? variable.example ?? ''}\n`
  })
  return `# Every variable of the relay with its default, or an example. For each X, X_FILE may name a file that holds the value.\n\n${rows.join('')}`
}
