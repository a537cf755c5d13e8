package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/tokens"
)

// limiterCommands are what the limiter's scripts use beyond what the grants need.
var limiterCommands = []string{"getrange", "setrange", "hgetall", "pubsub|numsub"}

// redisRules are what an ACL user must be given, and nothing else; docs/redis.md has them in a line of redis.conf.
func redisRules() []string {
	commands := append(tokens.RedisCommands(), limiterCommands...)
	if i := slices.Index(commands, "cluster"); i >= 0 {
		commands[i] = "cluster|slots" // the rest of it could take a Cluster apart
	}
	slices.Sort(commands)
	rules := []string{"~fap:v1:*", "&fap:v1:*", "-@all"}
	for _, command := range slices.Compact(commands) {
		rules = append(rules, "+"+command)
	}
	return rules
}

// probeLife is how long a key lives that a probe made.
const probeLife = 10 * time.Second

// probes are commands that change nothing, or a key that expires, so that only whether they are allowed matters. Most
// are about a key that is not there.
func (n redisNode) probes() [][]any {
	key, absent := n.key, n.key+":absent"
	all := [][]any{
		{"ping"}, {"hello"}, {"time"}, {"info", "server"}, {"wait", 0, 1}, {"scan", 0, "count", 1},
		{"set", key, "probe", "px", probeLife.Milliseconds()}, {"setrange", key, 0, ""},
		{"get", absent}, {"getrange", absent, 0, 1}, {"exists", absent}, {"del", absent},
		{"pexpire", absent, 1000}, {"persist", absent}, {"pttl", absent},
		{"hget", absent, "f"}, {"hmget", absent, "f"}, {"hexists", absent, "f"}, {"hgetall", absent}, {"hdel", absent, "f"},
		{"hset", absent, "f", "v", "f without v"}, // an error, if it is allowed
		{"eval", "return 1", 1, absent},
		{"evalsha", strings.Repeat("0", 40), 1, absent}, // there is no such script
		{"publish", probeChannel, "probe"}, {"pubsub", "numsub", probeChannel},
	}
	if n.cluster {
		all = append(all, []any{"command", "count"}, []any{"cluster", "slots"})
	} else {
		all = append(all, []any{"select", n.Options().DB})
	}
	return all
}

// probeChannel is one that nobody listens to.
const probeChannel = "fap:v1:check"

// missing returns the ACL rules that our user needs and has not, such as "+get".
func (n redisNode) missing(ctx context.Context) ([]string, error) {
	var rules []string
	for _, probe := range n.probes() {
		err := n.Do(ctx, probe...).Err()
		rule, denied := deniedRule(err)
		switch name := probe[0].(string); {
		case denied:
			rules = append(rules, rule)
		case redis.HasErrorPrefix(err, "unknown command"):
			return nil, fmt.Errorf("it has no command %s; let it have that, or use another Redis", strings.ToUpper(name))
		case err != nil && (name == "set" || name == "ping" || !errors.As(err, new(redis.Error))):
			return nil, fmt.Errorf("%s: %w", strings.ToUpper(name), err)
		}
	}
	rules = append(rules, n.missingToListen(ctx)...)
	slices.Sort(rules)
	return slices.Compact(rules), nil
}

func (n redisNode) missingToListen(ctx context.Context) []string {
	listening := n.Subscribe(ctx)
	defer listening.Close()
	for _, step := range []func(context.Context, ...string) error{listening.Subscribe, listening.Unsubscribe} {
		err := step(ctx, probeChannel)
		if err == nil {
			_, err = listening.Receive(ctx)
		}
		if rule, denied := deniedRule(err); denied {
			return []string{rule}
		}
	}
	return nil
}

// deniedCommand finds the command, or subcommand, in Redis's refusal to run it.
var deniedCommand = regexp.MustCompile(`permissions to run the '([a-z_-]+)`)

// deniedRule is the ACL rule whose absence an error tells of. Redis says it in words alone, after the code NOPERM.
func deniedRule(err error) (rule string, denied bool) {
	if !redis.HasErrorPrefix(err, "NOPERM") {
		return "", false
	}
	text := err.Error()
	if found := deniedCommand.FindStringSubmatch(text); found != nil {
		for _, rule := range redisRules() {
			if name, _, _ := strings.Cut(rule, "|"); name == "+"+found[1] {
				return rule, true
			}
		}
		return "+" + found[1], true
	}
	if strings.Contains(text, "channel") {
		return "&fap:v1:*", true
	}
	return "~fap:v1:*", true
}

// tryScript holds what the scripts of grants and limits are made of: its clock, a write after that, and binary numbers.
var tryScript = redis.NewScript(`
local now = redis.call('TIME')
redis.call('SET', KEYS[1], struct.pack('>I8', now[1]), 'PX', ARGV[1])
return struct.unpack('>I8', redis.call('GET', KEYS[1])) == tonumber(now[1])`)

// runScript makes sure that scripts run.
func (n redisNode) runScript(ctx context.Context) error {
	switch ok, err := tryScript.Run(ctx, n, []string{n.key}, probeLife.Milliseconds()).Bool(); {
	case err != nil:
		return fmt.Errorf("it does not run our scripts: %w", err)
	case !ok:
		return errors.New("its scripts do not get back what they write; use Redis or Valkey, not what is only like them")
	}
	return nil
}
