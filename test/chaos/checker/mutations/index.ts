import { lifecycles } from './lifecycles.js'
import { money } from './money.js'
import { orders } from './orders.js'
import { rack } from './rack.js'
import { sessions } from './sessions.js'
import { watches } from './watches.js'
import type { Mutation } from './change.js'

export const mutations: readonly Mutation[] = [...money, ...rack, ...orders, ...sessions, ...lifecycles, ...watches]
