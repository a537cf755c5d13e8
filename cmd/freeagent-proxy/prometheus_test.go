package main

const promtool = "promtool"
