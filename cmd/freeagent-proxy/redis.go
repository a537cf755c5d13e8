package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/turns"
	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

const (
	redisPort    = "6379"
	sentinelPort = "26379"
	// redisTimeout bounds one exchange with Redis. Decisions of the limiter have tighter ones of their own.
	redisTimeout = 2 * time.Second
	// redisPool is how many connections a process may have: one for each decision that is on its way.
	redisPool = 64
)

// redisOptions is how to reach Redis, from the URL or from the settings beside it. Its errors are sentences for whoever
// wrote the setting of that key.
func (c RedisConfig) options() (*redis.UniversalOptions, string, error) {
	o := &redis.UniversalOptions{
		Addrs:                 c.Addresses,
		MasterName:            c.Master,
		IsClusterMode:         c.Cluster,
		Username:              c.Username,
		Password:              c.Password.Reveal(),
		DB:                    c.Database,
		DialTimeout:           redisTimeout,
		ReadTimeout:           redisTimeout,
		WriteTimeout:          redisTimeout,
		PoolSize:              redisPool,
		MaxRetries:            -1, // a script that is sent twice is run twice
		ContextTimeoutEnabled: true,
		ClientName:            "freeagent-proxy",
	}
	secure := c.TLS != TLSConfig{}
	if text := c.address(); text != "" {
		ok, err := readRedisURL(text, o)
		if err != nil {
			return nil, "url", err
		}
		secure = secure || ok
	}
	port := redisPort
	if o.MasterName != "" {
		port = sentinelPort
		o.SentinelUsername, o.SentinelPassword = c.SentinelUsername, c.SentinelPassword.Reveal()
	}
	for i, addr := range o.Addrs {
		if !strings.HasPrefix(addr, "/") {
			o.Addrs[i] = withPort(addr, port)
		}
	}
	if secure {
		var key string
		var err error
		if o.TLSConfig, key, err = c.TLS.client(); err != nil {
			return nil, "tls." + key, err
		}
	}
	return o, "", nil
}

// address is the URL, wherever it was given.
func (c RedisConfig) address() string {
	if text := c.URL.Reveal(); text != "" {
		return text
	}
	return c.HiddenURL.Reveal()
}

// given reports whether Redis is configured at all.
func (c RedisConfig) given() bool { return c.address() != "" || len(c.Addresses) > 0 }

// readRedisURL reads redis://user:password@host:port/database, and the forms for Sentinel and Cluster; see
// docs/configuration.md. It does not repeat the URL in its errors: a password may be in it.
func readRedisURL(text string, o *redis.UniversalOptions) (secure bool, err error) {
	text, more := oneHost(text)
	u, err := url.Parse(text)
	if err != nil {
		return false, errors.New("is not a URL; write redis://host:6379/0, or rediss:// for TLS")
	}
	scheme, form, _ := strings.Cut(strings.ReplaceAll(u.Scheme, "+", "-"), "-")
	switch {
	case scheme == "unix" && form == "":
		o.Addrs = []string{u.Path}
		u.Path = ""
	case scheme != "redis" && scheme != "rediss" || form != "" && form != "sentinel" && form != "cluster":
		return false, errors.New("must begin with redis://, rediss:// (TLS), redis-sentinel://, redis-cluster:// or unix://")
	case u.Host == "":
		return false, errors.New("has no host; write redis://host:6379/0")
	default:
		o.Addrs = append(append([]string{u.Host}, more...), u.Query()["addr"]...)
	}
	if user := u.User.Username(); user != "" {
		o.Username = user
	}
	if password, ok := u.User.Password(); ok {
		o.Password = password
	}
	if err := readRedisQuery(u, form, o); err != nil {
		return false, err
	}
	o.IsClusterMode = o.IsClusterMode || o.MasterName == "" && len(o.Addrs) > 1
	return scheme == "rediss", nil
}

// oneHost takes all hosts but the first out of a URL, which is to have one only.
func oneHost(text string) (one string, more []string) {
	_, behind, _ := strings.Cut(text, "://")
	begin, end := len(text)-len(behind), len(text)
	if i := strings.IndexAny(text[begin:], "/?#"); i >= 0 {
		end = begin + i
	}
	begin += strings.LastIndexByte(text[begin:end], '@') + 1
	hosts := strings.Split(text[begin:end], ",")
	return text[:begin] + hosts[0] + text[end:], hosts[1:]
}

// readRedisQuery reads what follows the hosts: the database, Sentinel's name for the master, and what else there is.
func readRedisQuery(u *url.URL, form string, o *redis.UniversalOptions) error {
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	if form == "sentinel" && path[0] != "" {
		o.MasterName, path = path[0], path[1:]
	}
	o.IsClusterMode = o.IsClusterMode || form == "cluster"
	database := strings.Join(path, "/")
	for name, values := range u.Query() {
		switch value := values[0]; name {
		case "addr":
		case "db":
			database = value
		case "master", "master_name":
			o.MasterName = value
		case "cluster":
			o.IsClusterMode = value == "true"
		default:
			return fmt.Errorf("has an unknown parameter %s; known here: addr, cluster, db, master", strconv.Quote(name))
		}
	}
	if form == "sentinel" && o.MasterName == "" {
		return errors.New("names no master; write redis-sentinel://host:26379,host:26379/mymaster")
	}
	if database == "" {
		return nil
	}
	var err error
	if o.DB, err = strconv.Atoi(database); err != nil || o.DB < 0 {
		return errors.New("has no usable database; it is a number, as in redis://host:6379/0")
	}
	if o.DB != 0 && o.IsClusterMode {
		return errors.New("names a database, but a Cluster has the one numbered 0 only")
	}
	return nil
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// client is the TLS configuration of a client. An error comes with the key that it is about.
func (c TLSConfig) client() (_ *tls.Config, key string, err error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, "ca", err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, "ca", errors.New("the file holds no certificate in PEM form")
		}
	}
	if c.Cert != "" || c.Key != "" {
		certificate, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, "cert", fmt.Errorf("cert and key do not make a client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, "", nil
}

// redisStore is a tokens.Redis with a client of its own.
type redisStore struct {
	*tokens.Redis
	client redis.UniversalClient
}

// Close closes both.
func (s *redisStore) Close() error { return errors.Join(s.Redis.Close(), s.client.Close()) }

// openRedis makes the store in Redis, which connects when it is first used. degraded may be nil.
func openRedis(cfg Config, keys []tokens.Key, degraded func(what string, err error)) (*redisStore, error) {
	o, _, err := cfg.Store.Redis.options()
	if err != nil {
		return nil, err
	}
	redis.SetLogger(silent{}) // what it would print on standard error comes back as errors, too
	client := redis.NewUniversalClient(o)
	store, err := tokens.NewRedis(tokens.RedisConfig{
		Client:       client,
		Keys:         keys,
		Backup:       cfg.Store.Redis.Backup,
		WaitReplicas: cfg.Store.Redis.WaitReplicas,
		Degraded:     degraded,
	})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &redisStore{store, client}, nil
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// openShared makes the parts that several processes share.
func (s *server) openShared() error {
	keys, err := encryptionKeys(s.config())
	if err != nil {
		return err
	}
	store, err := openRedis(s.config(), keys, observeStore(s.log))
	if err != nil {
		return err
	}
	s.store = store
	shared, err := limiter.NewRedis(limiter.RedisConfig{
		Client:   store.client,
		Guard:    s.config().Limits.Guard,
		Replicas: int(s.config().Limits.Replicas),
		Observe:  observeLimiter(s.log),
	})
	if err != nil {
		return err
	}
	s.limiter = shared
	s.turns = turns.NewRedis(turns.RedisConfig{Client: store.client, Observe: observeTurns(s.log)})
	s.outcomes = outcomes.NewRedis(store.client, 0, s.outcomesConfig())
	s.watch = func(ctx context.Context) { store.Watch(ctx, s.tokens.Changed) }
	return nil
}

// validateRedis reports what cannot be used of the settings of Redis.
func (c Config) validateRedis(p *problems) {
	const section = "store.redis"
	r := c.Store.Redis
	switch {
	case !r.given():
		return
	case len(c.Encryption.Keys) == 0:
		p.add("encryption.keys", "missing: in Redis grants are always sealed; name a key that `freeagent-proxy keygen` has printed, the same one for all replicas")
	}
	if r.address() != "" && (len(r.Addresses) > 0 || r.Master != "" || r.Cluster) {
		p.add(section+".addresses", "the URL says where Redis is already; keep one of the two")
	}
	if r.Master != "" && r.Cluster {
		p.add(section+".cluster", "Sentinel's master is named already; keep one of the two")
	}
	if r.Database < 0 || r.Database > 0 && r.Cluster {
		p.add(section+".database", "%d is none; it is 0 or more, and a Cluster has 0 only", r.Database)
	}
	if r.WaitReplicas < 0 || r.WaitReplicas > 10 {
		p.add(section+".wait_replicas", "%d must be from 0 to 10", r.WaitReplicas)
	}
	if _, key, err := r.options(); err != nil {
		p.add(section+"."+key, "%s", err)
		return
	}
	if r.TLS.Cert != "" {
		noteEnds(p, section+".tls.cert", "the client certificate", r.TLS.Cert)
	}
	if r.TLS.CA != "" {
		noteEnds(p, section+".tls.ca", "a certificate in it", r.TLS.CA)
	}
}
