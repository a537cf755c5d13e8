package simulator

import "time"

// Config is every switch of the simulator. The zero value is FreeAgent as it is
// documented or, where that is not known, as most reports have it; each field's
// doc ends with that default. The JSON names are those of POST /_sim/config,
// which changes the same fields while it runs.
type Config struct {
	// Apps that are registered. Default: none, and any client id and secret will do.
	Apps []App `json:"apps"`
	// AutoApprove redirects from the approve page at once, as if the person had pressed Approve.
	AutoApprove bool `json:"auto_approve"`
	// User is who approves, unless the approve page or the caller names another. Default "owner".
	User string `json:"user"`
	// EmptyState sends "&state=" back although none was sent, as some clients saw it.
	EmptyState bool `json:"empty_state"`
	// DeniedError is the error on the redirect when Deny was pressed. Default "access_denied".
	DeniedError string `json:"denied_error"`
	// RedirectErrorStatus is the status of the page that an unregistered redirect URI gets. Default 400.
	RedirectErrorStatus int `json:"redirect_error_status"`
	// CodeLifetime is how long an authorisation code may be exchanged. Default 15m.
	CodeLifetime Duration `json:"code_lifetime"`
	// AccessTokenLifetime may be below a second; expires_in is rounded up. Default 1h.
	AccessTokenLifetime Duration `json:"access_token_lifetime"`
	// RefreshTokenLifetime is told in refresh_token_expires_in, and kept. Default 20 years (631151957s).
	RefreshTokenLifetime Duration `json:"refresh_token_lifetime"`
	// Rotation says what becomes of a refresh token that was used: RotationStrict,
	// RotationGrace or RotationLenient. Default RotationStrict.
	Rotation string `json:"rotation"`
	// Grace is how long a used refresh token still works with RotationGrace. Default 30s.
	Grace Duration `json:"grace"`
	// TokenErrors is how the token endpoint refuses: TokenErrorsBasicText or
	// TokenErrorsInvalidGrant. Default TokenErrorsBasicText.
	TokenErrors string `json:"token_errors"`
	// AccessDiesOnRefresh kills a user's access tokens when a new one is issued; else they serve their time.
	AccessDiesOnRefresh bool `json:"access_dies_on_refresh"`
	// ReauthorizeReplaces kills the grants that a user gave the app before.
	ReauthorizeReplaces bool `json:"reauthorize_replaces"`
	// RefuseMislabelledForm refuses form data that is labelled JSON, which is otherwise understood.
	RefuseMislabelledForm bool `json:"refuse_mislabelled_form"`

	// Enforcement is how the limits below hold: EnforceAligned (fixed windows
	// on the clock), EnforceSliding or EnforceOff. Counting goes on in any case. Default EnforceAligned.
	Enforcement string `json:"enforcement"`
	// UserLimits hold per user and X-Subdomain. Default 120 per 1m and 3600 per 1h.
	UserLimits []Window `json:"user_limits"`
	// SourceLimits hold per source address, over everything below /v2. Default 1000 per 1m.
	SourceLimits []Window `json:"source_limits"`
	// RefreshLimits hold per user for refreshes at the token endpoint. Default 15 per 1m.
	RefreshLimits []Window `json:"refresh_limits"`
	// TestLimit replaces UserLimits for requests with a truthy X-RateLimit-Test. Default 5 per 1m.
	TestLimit Window `json:"test_limit"`
	// LimitBySource counts one user from two source addresses apart.
	LimitBySource bool `json:"limit_by_source"`
	// LimitByApp counts one user's apps apart.
	LimitByApp bool `json:"limit_by_app"`
	// CountRejected lets a request that got 429 count against the limits too.
	CountRejected bool `json:"count_rejected"`
	// TokenEndpointCounts lets a refresh count against UserLimits too.
	TokenEndpointCounts bool `json:"token_endpoint_counts"`
	// RetryAfter is what the header says: RetryAfterPeriod (the whole window) or
	// RetryAfterBoundary (until there is room again). Default RetryAfterPeriod.
	RetryAfter string `json:"retry_after"`

	// PublicURL begins every absolute URL. Default: scheme and host of the request.
	PublicURL string `json:"public_url"`
	// AlwaysUnauthorized are path prefixes that answer 401 to healthy tokens.
	AlwaysUnauthorized []string `json:"always_unauthorized"`
	// WWWAuthenticate is that header on the API's 401. Default: none.
	WWWAuthenticate string `json:"www_authenticate"`
	// NoTokenMessage is the API's 401 for a request without a token. Default "Access token not recognised".
	NoTokenMessage string `json:"no_token_message"`
	// AlwaysXML answers XML whatever Accept says.
	AlwaysXML bool `json:"always_xml"`
	// NoGzip never compresses; else a 200 is gzipped for whoever accepts it.
	NoGzip bool `json:"no_gzip"`
	// NoChunked sends a Content-Length; else HTTP/1.1 answers are chunked.
	NoChunked bool `json:"no_chunked"`
	// ConditionalGet answers 304 when If-None-Match names the current ETag.
	ConditionalGet bool `json:"conditional_get"`
	// LinkQuotes is LinkSingle (rel='next', as seen live) or LinkDouble (as documented). Default LinkSingle.
	LinkQuotes string `json:"link_quotes"`
	// PerPageOverLimit is what per_page above the maximum gets: PerPageClamp or PerPageRefuse (400). Default PerPageClamp.
	PerPageOverLimit string `json:"per_page_over_limit"`
	// RequireUserAgent refuses requests without a User-Agent with 400.
	RequireUserAgent bool `json:"require_user_agent"`
	// AllowPatch treats PATCH as PUT; else it is 404.
	AllowPatch bool `json:"allow_patch"`
	// EmptyPUT answers PUT with 200 and an empty body, as FreeAgent does now and then.
	EmptyPUT bool `json:"empty_put"`
	// UnknownReferences accepts references to records that do not exist.
	UnknownReferences bool `json:"unknown_references"`
	// MaxBody is the largest request body in bytes; more is 413. Default: no limit.
	MaxBody int64 `json:"max_body"`
	// PracticeUsers have clients instead of a company. Default "practice".
	PracticeUsers []string `json:"practice_users"`
	// PracticeClients are the subdomains that X-Subdomain may name. Default: any; each begins to exist when first named.
	PracticeClients []string `json:"practice_clients"`
	// UnknownSubdomainStatus answers a practice user whose X-Subdomain is missing or unknown. Default 404.
	UnknownSubdomainStatus int `json:"unknown_subdomain_status"`
	// RefuseCompanySubdomain answers 403 to X-Subdomain from a user who has a company; else it is ignored.
	RefuseCompanySubdomain bool `json:"refuse_company_subdomain"`
	// NumberingDelay is how long a create without reference takes between reading
	// the last number and using the next one: the race. Default 0: no race.
	NumberingDelay Duration `json:"numbering_delay"`
	// DuplicateReferences stores a reference that is already taken, as FreeAgent did before 2022; else that is 422.
	DuplicateReferences bool `json:"duplicate_references"`
	// StatementDelay is how long after its 200 an uploaded statement is imported. Default 0.
	StatementDelay Duration `json:"statement_delay"`

	// RequestLog is how many requests GET /_sim/requests remembers. Default 2000.
	RequestLog int `json:"request_log"`
	// MaxParsedBody is how many bytes of a body are parsed; of a larger one only
	// length and hash are known, and what it creates has no attributes. Default 1 MiB.
	MaxParsedBody int64 `json:"max_parsed_body"`
}

// App is a registered OAuth app.
type App struct {
	ClientID string `json:"client_id"`
	// ClientSecrets are all valid; FreeAgent allows two, for rotation. None: any will do.
	ClientSecrets []string `json:"client_secrets"`
	// RedirectURIs are matched exactly. None: any URI on localhost or 127.0.0.1.
	RedirectURIs []string `json:"redirect_uris"`
}

// Window is "at most Requests per Per".
type Window struct {
	Requests int      `json:"requests"`
	Per      Duration `json:"per"`
}

// The values of the switches that are words.
const (
	RotationStrict          = "strict"        // it dies at once
	RotationGrace           = "grace"         // it works for Grace
	RotationLenient         = "lenient"       // it goes on working
	TokenErrorsBasicText    = "basic_text"    // 401, text "HTTP Basic: Access denied."
	TokenErrorsInvalidGrant = "invalid_grant" // 400, JSON by RFC 6749
	EnforceAligned          = "aligned"
	EnforceSliding          = "sliding"
	EnforceOff              = "off"
	RetryAfterPeriod        = "period"
	RetryAfterBoundary      = "boundary"
	LinkSingle              = "single"
	LinkDouble              = "double"
	PerPageClamp            = "clamp"
	PerPageRefuse           = "400"
)

// refreshTokenLifetime is the refresh_token_expires_in of the documents' example.
const refreshTokenLifetime = 631151957 * time.Second
