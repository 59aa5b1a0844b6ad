/** `docs/operations/admin-routes.md`: each route of the listener of admins, and which role may use it; made of the list that the router goes by. */
import { ADMIN_ROUTES, type AdminRoute, type AdminRouteName, mayAct, ROLES, type Role } from '@sealpost/protocol'
import { CONTRACTS } from '../admin/contracts.ts'
import { problemsOf } from '../http/contract.ts'

const ROLE_SAYS: Readonly<Record<Role, string>> = {
  viewer: 'sees figures and lists',
  operator: 'also shuts accounts and devices out and lets them in again, ends sessions, invites, sets limits and the log level, runs jobs',
  owner: 'also rules the admins and the keys of tokens, and deletes accounts',
}

/** Said once, above the table. */
const OF_ALL: ReadonlySet<string> = new Set([
  'internal',
  'unavailable',
  'invalid_request',
  'rate_limited',
  'overloaded',
  'unauthorized',
  'forbidden',
])

export function adminMatrixPage(): string {
  const routes = Object.entries(ADMIN_ROUTES) as [AdminRouteName, AdminRoute][]
  const rows = routes.map(([name, row]) => {
    const cells = ROLES.map((role) => (row.auth === 'token' ? (mayAct(role, row.role) ? 'may' : '–') : 'may'))
    const others = row.auth === 'token' ? '–' : row.auth === 'none' ? 'may' : 'by assertion'
    const codes = problemsOf(row, CONTRACTS[name])
      .filter((code) => !OF_ALL.has(code))
      .map((code) => `\`${code}\``)
    return `| \`${name}\` | \`${row.method} ${row.path}\` | ${[others, ...cells].join(' | ')} | ${row.says} | ${codes.join(' ') || '–'} | ${row.again ?? 'It changes nothing.'} |`
  })
  return `# Who may do what on the listener of admins

This page is made of [\`admin-routes.ts\`](../../packages/protocol/src/admin-routes.ts) and the contracts by \`node scripts/run.mjs docs\`.
\`packages/server/test/admin-matrix.test.ts\` drives every cell on a running relay: no token, each role, an admin that was removed, a token of a device. A
route without a rule does not compile, and is refused. The members and bounds of each request and answer are in
[\`api/admin-openapi.json\`](../api/admin-openapi.json).

${ROLES.map((role) => `- **${role}** ${ROLE_SAYS[role]}`).join('\n')}

Which role an admin has is asked of the database on each request. Without a token in force the answer is 401 \`unauthorized\`, in a role that is not enough 403
\`forbidden\`; neither changes anything. What changes something is written into the audit log before it begins and when it ended; if it cannot be
written down, the answer is 503 \`unavailable\` and it is not done. Each may also answer \`invalid_request\`, \`rate_limited\` and \`internal\`; the table
has what comes beside these.

| route | | without a token | ${ROLES.join(' | ')} | what it does | refusals | when the answer was lost |
|---|---|---|${ROLES.map(() => '---|').join('')}---|---|---|
${rows.join('\n')}
`
}
