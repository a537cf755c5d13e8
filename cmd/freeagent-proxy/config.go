package main

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is everything that can be set. loadConfig makes one from a YAML file, or from the
// environment alone. The yaml tag is the key in the file. required marks a key that must be
// given, with the words that say what belongs there; from lists the keys that name where a
// secret is kept.
type Config struct {
	// Listen is where programs connect: host:port, off loopback only with Clients, unix:/path, or systemd (systemd:NAME) for
	// sockets that systemd passes. One or a list. Default 127.0.0.1:8080.
	Listen []string `yaml:"listen"`
	// PublicURL is how programs reach us: scheme and host only. Its host is one we answer to.
	// Default nil.
	PublicURL *url.URL `yaml:"public_url"`
	// AllowedHosts are more host names that we answer to, without port. Loopback names, the
	// address connected to and PublicURL's host are always allowed. Default none.
	AllowedHosts []string `yaml:"allowed_hosts"`
	// TrustedProxies are networks or addresses of those whose Forwarded or X-Forwarded-For names the client's
	// address. Default none.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// Clients are the programs that may call, by a name of our own choice. Default none: everyone who may connect is
	// the client "anonymous", and may do everything.
	Clients map[string]ClientConfig `yaml:"clients"`
	Admin   AdminConfig             `yaml:"admin"`
	// TLS is for those of Listen, and of clients' own listeners, that are no unix sockets. Default none: they speak plain HTTP.
	TLS ServerTLSConfig `yaml:"tls"`
	// MaxConnections is how many connections may be open at each of Listen, 1 to 1000000; more wait until
	// some end. The limit of open files may lower it. Default 10000.
	MaxConnections int              `yaml:"max_connections"`
	Upstream       UpstreamConfig   `yaml:"upstream"`
	Store          StoreConfig      `yaml:"store"`
	Encryption     EncryptionConfig `yaml:"encryption"`
	// Apps are the OAuth apps registered at https://dev.freeagent.com, by a name of our own
	// choice. At least one.
	Apps map[string]AppConfig `yaml:"apps"`
	// Accounts are FreeAgent users' authorisations, by the name that programs and commands
	// use for them. At least one.
	Accounts map[string]AccountConfig `yaml:"accounts"`
	Limits   LimitsConfig             `yaml:"limits"`
	Writes   WritesConfig             `yaml:"writes"`
	Log      LogConfig                `yaml:"log"`
	Tracing  TracingConfig            `yaml:"tracing"`

	// Seed is a refresh token that was got elsewhere, from FREEAGENT_REFRESH_TOKEN. Only
	// without a file; beside one, `accounts import` brings a token in.
	Seed Secret `yaml:"-"`
	// Inherited is what the environment says of sockets that systemd passed.
	Inherited inheritedSockets `yaml:"-"`
	// Variables are the settings whose secret an environment variable holds: they cannot change in a running process.
	Variables []string `yaml:"-"`
	// Notes are sentences for the log: nothing is wrong, yet the operator should know.
	Notes []string `yaml:"-"`
}

// ServerTLSConfig is how programs reach us by TLS.
type ServerTLSConfig struct {
	// Cert is a file with our certificate and its issuers behind it, Key one with its key, in PEM form. Both or
	// none. They are read anew when they change. Default none.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ClientCA is a file with the certificates, in PEM form, that must have signed a program's own if it shows
	// one. Default none: no program is asked for one.
	ClientCA string `yaml:"client_ca"`
}

// AdminConfig is the operator's listener.
type AdminConfig struct {
	// Listen is its host:port. Default 127.0.0.1:8081.
	Listen string `yaml:"listen"`
	// Password must be set off loopback. Default none.
	Password Secret `yaml:"password" from:"password_env,password_file"`
	// PublicURL is how browsers reach it through a reverse proxy: scheme and host only. Its host is one that it answers to.
	// Default nil.
	PublicURL *url.URL `yaml:"public_url"`
}

// UpstreamConfig is FreeAgent's API.
type UpstreamConfig struct {
	// BaseURL is its scheme and host, without a path: https, or http on loopback.
	// Default https://api.freeagent.com.
	BaseURL *url.URL `yaml:"base_url"`
	// Timeout is how long an attempt may make no progress, 1s to 10m. Default 75s: FreeAgent's own gateway gives up
	// at 60s, and its answer to that should arrive.
	Timeout time.Duration `yaml:"timeout"`
	// UserAgent is appended to the client's User-Agent, or stands alone if it sent none.
	// Default empty.
	UserAgent string `yaml:"user_agent"`
}

// StoreConfig is where grants are kept.
type StoreConfig struct {
	// File is a folder. Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/freeagent-proxy,
	// else $HOME/.local/state/freeagent-proxy, else, on Windows, %LOCALAPPDATA%\freeagent-proxy.
	File string `yaml:"file"`
	// Redis is where several processes keep them together, instead of File.
	Redis RedisConfig `yaml:"redis"`
}

// RedisConfig is a Redis or Valkey: by URL, or by the settings beside it.
type RedisConfig struct {
	// URL is redis://user:password@host:port/database, rediss:// for TLS, redis-sentinel://host,host/master or
	// redis-cluster://host,host. Default none.
	URL Secret `yaml:"url"`
	// HiddenURL is the same, kept out of the file.
	HiddenURL Secret `yaml:"url_secret" from:"url_env,url_file"`
	// Addresses are host:port of the Redis, of the Sentinels, or of some of a Cluster's nodes. Default none.
	Addresses []string `yaml:"addresses"`
	// Master is Sentinel's name for the master. Default none: there is no Sentinel.
	Master string `yaml:"master"`
	// Cluster says that Addresses are a Cluster's. Default false.
	Cluster bool `yaml:"cluster"`
	// Username and Password are an ACL user's, SentinelUsername and SentinelPassword the Sentinels' own. Default none.
	Username         string `yaml:"username"`
	Password         Secret `yaml:"password" from:"password_env,password_file"`
	SentinelUsername string `yaml:"sentinel_username"`
	SentinelPassword Secret `yaml:"sentinel_password" from:"sentinel_password_env,sentinel_password_file"`
	// Database is its number. Default 0.
	Database int       `yaml:"database"`
	TLS      TLSConfig `yaml:"tls"`
	// Backup is a folder for a second copy of each grant that this process stored. Default none.
	Backup string `yaml:"backup"`
	// WaitReplicas is how many of Redis's own replicas must have a new grant, or a keyed POST that is to leave, 0 to 10. Default 0.
	WaitReplicas int `yaml:"wait_replicas"`
}

// TLSConfig is how a client does TLS.
type TLSConfig struct {
	// CA is a file with the certificates to trust, in PEM form. Default: the system's.
	CA string `yaml:"ca"`
	// Cert and Key are files with the client's certificate and its key, in PEM form. Default none.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ServerName is the name that the server's certificate must have. Default: the host connected to.
	ServerName string `yaml:"server_name"`
}

// EncryptionConfig is how grants are sealed at rest.
type EncryptionConfig struct {
	// Keys: the first one seals, all can open. Default none: a key is made beside the
	// file store on its first start.
	Keys []KeyConfig `yaml:"keys"`
}

// KeyConfig is one encryption key.
type KeyConfig struct {
	// ID is kept with what the key sealed, so that keys can be replaced one by one.
	ID string `yaml:"id" required:"a name for this key, such as \"2026\""`
	// Key is 32 bytes in standard base64 (44 characters), as `keygen` prints it.
	Key Secret `yaml:"key" from:"env,file" required:"the environment variable, or with file the file, that holds the key"`
}

// AppConfig is one OAuth app.
type AppConfig struct {
	// ClientID is the app's "OAuth identifier".
	ClientID string `yaml:"client_id" required:"the app's OAuth identifier, from https://dev.freeagent.com"`
	// ClientSecret is the app's "OAuth secret".
	ClientSecret Secret `yaml:"client_secret" from:"client_secret_env,client_secret_file" required:"the environment variable, or with client_secret_file the file, that holds the app's OAuth secret"`
}

// AccountConfig is one FreeAgent user's authorisation of one app.
type AccountConfig struct {
	// App is the name of one of Apps.
	App string `yaml:"app" required:"the name of one of the apps"`
	// Default marks the account of requests that name none. Default false.
	Default bool `yaml:"default"`
	// Practice says that the user is an accountancy practice's, whose clients X-Subdomain names: FreeAgent's limits
	// hold for each of them by itself. Default false.
	Practice bool `yaml:"practice"`
	// RateLimitTest lets the X-RateLimit-Test header through, with which FreeAgent enforces
	// 5 requests a minute, and lowers our own limit to that. Default false.
	RateLimitTest bool `yaml:"rate_limit_test"`
}

// LimitsConfig is what we never exceed, and how long requests wait for their turn.
// The defaults are FreeAgent's limits, per user, per user and per address.
type LimitsConfig struct {
	// API counts an account's requests. Default 120 per 1m and 3600 per 1h.
	API []WindowConfig `yaml:"api"`
	// Refresh counts an account's token requests. Default 15 per 1m.
	Refresh []WindowConfig `yaml:"refresh"`
	// Egress counts everything that leaves, over all accounts. Default 1000 per 1m.
	Egress []WindowConfig `yaml:"egress"`
	// Guard makes each window this much longer, for jitter on the way, 0s to 60s. Default 1s.
	Guard time.Duration `yaml:"guard"`
	// MaxWait is how long a request may wait for its turn, 0s to 1h. Default 20s.
	MaxWait time.Duration `yaml:"max_wait"`
	// Replicas is how many processes share the store: each has that part of every budget while it is unreachable. 1 also
	// says that a refresh is safe without its lock. Default 0, which is written auto: as many as were last seen alive in it.
	Replicas replicas `yaml:"replicas"`
}

// replicas is a number of processes; 0 is auto.
type replicas int

// WindowConfig is "at most Requests in any Per".
type WindowConfig struct {
	// Requests is 1 to 100000.
	Requests int `yaml:"requests" required:"how many requests, such as 120"`
	// Per is 100ms to 24h; FreeAgent's own windows are a minute and an hour.
	Per time.Duration `yaml:"per" required:"in which time, such as 1m"`
}

// WritesConfig is what is done so that writes happen once.
type WritesConfig struct {
	// OneAtATime are the writes that happen one at a time for each company, such as POST /v2/invoices: each for itself, over all
	// processes that share the store. An empty list: none. Default POST /v2/invoices, POST /v2/estimates and
	// POST /v2/credit_notes, of which FreeAgent gives two the same reference if they are created at once.
	OneAtATime []string `yaml:"one_at_a_time"`
}

// LogConfig is what is logged, to standard error.
type LogConfig struct {
	// Level is debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// Format is json or console. Default json.
	Format string `yaml:"format"`
}

// TracingConfig is where spans go.
type TracingConfig struct {
	// OTLPEndpoint is a collector that takes OTLP over HTTP: http or https, /v1/traces is appended. Default nil: tracing is off.
	OTLPEndpoint *url.URL `yaml:"otlp_endpoint"`
	// Sample is the part, 0 to 1, of the requests that is traced, but for those whose client says by traceparent whether
	// they are. Default 1.
	Sample float64 `yaml:"sample"`
	// Headers are sent to the collector: name=value, joined by commas. Default none.
	Headers Secret `yaml:"headers" from:"headers_env,headers_file"`
}

// defaultConfig is what holds where nothing is set. It has neither app nor account.
func defaultConfig(getenv func(string) string) Config {
	return Config{
		Listen:         []string{"127.0.0.1:8080"},
		MaxConnections: defaultConnections,
		Admin:          AdminConfig{Listen: "127.0.0.1:8081"},
		Upstream: UpstreamConfig{
			BaseURL: &url.URL{Scheme: "https", Host: "api.freeagent.com"},
			Timeout: 75 * time.Second,
		},
		Store: StoreConfig{File: defaultStore(getenv)},
		Limits: LimitsConfig{
			API:     []WindowConfig{{120, time.Minute}, {3600, time.Hour}},
			Refresh: []WindowConfig{{15, time.Minute}},
			Egress:  []WindowConfig{{1000, time.Minute}},
			Guard:   time.Second,
			MaxWait: 20 * time.Second,
		},
		Writes:    WritesConfig{OneAtATime: []string{"POST /v2/invoices", "POST /v2/estimates", "POST /v2/credit_notes"}},
		Log:       LogConfig{Level: "info", Format: "json"},
		Tracing:   TracingConfig{Sample: 1},
		Inherited: inheritedFrom(getenv),
	}
}

// defaultStore is the folder that the platform keeps for us, or "" if it names none.
func defaultStore(getenv func(string) string) string {
	// systemd gives each unit its own StateDirectory=, several joined by colons (systemd.exec(5)).
	if folder, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":"); folder != "" {
		return folder
	}
	// A relative XDG path is to be ignored (XDG Base Directory Specification).
	if folder := getenv("XDG_STATE_HOME"); filepath.IsAbs(folder) {
		return filepath.Join(folder, "freeagent-proxy")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "freeagent-proxy")
	}
	if local := getenv("LOCALAPPDATA"); filepath.IsAbs(local) { // Windows sets no HOME
		return filepath.Join(local, "freeagent-proxy")
	}
	return ""
}

// hosts are the names that we answer to, beside those that always count.
func (c Config) hosts() []string {
	hosts := slices.Clone(c.AllowedHosts)
	if c.PublicURL != nil {
		hosts = append(hosts, c.PublicURL.Host)
	}
	return hosts
}

// DefaultAccount is the account of requests that name none: the only one, or the one marked
// default. false: every request must name its account.
func (c Config) DefaultAccount() (string, bool) {
	for name, account := range c.Accounts {
		if account.Default || len(c.Accounts) == 1 {
			return name, true
		}
	}
	return "", false
}
