#!/usr/bin/env node
import { provider } from './provider.js'

await provider.serve()
