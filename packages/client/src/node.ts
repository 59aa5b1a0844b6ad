/** `@sealpost/client/node`: where the SDK lives on Node. */
export { nodeClock } from './node/clock.ts'
export { openHome } from './node/home.ts'
export { createServerClock, type ServerClock } from './connection/server-clock.ts'
export { networkError } from './node/network-errors.ts'
