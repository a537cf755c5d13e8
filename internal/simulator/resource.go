package simulator

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// resource answers everything below /v2 but OAuth.
func (s *Simulator) resource(c *call) reply {
	rep, err := s.admitted(c)
	if err != nil {
		return c.fail(err)
	}
	return rep
}

func (s *Simulator) admitted(c *call) (reply, error) {
	if err := c.authenticate(); err != nil {
		return reply{}, err
	}
	if c.cfg.RequireUserAgent && c.r.Header.Get("User-Agent") == "" {
		return reply{}, refusal(http.StatusBadRequest, "User-Agent is missing")
	}
	segments := strings.Split(strings.TrimPrefix(c.path, "/v2/"), "/")
	switch segments[0] {
	case "_sim_stream":
		return c.streamed()
	case "_sim_echo":
		return c.echo(), nil
	}
	if err := s.chooseCompany(c, segments[0]); err != nil {
		return reply{}, err
	}
	return s.route(c, segments)
}

// authenticate is the 401 of FreeAgent.
func (c *call) authenticate() error {
	always := slices.ContainsFunc(c.cfg.AlwaysUnauthorized, func(prefix string) bool { return strings.HasPrefix(c.path, prefix) })
	switch {
	case c.standing == noToken || c.standing == otherScheme:
		return refusal(http.StatusUnauthorized, "%s", c.cfg.NoTokenMessage)
	case c.standing != goodToken || always:
		return refusal(http.StatusUnauthorized, tokenNotRecognised)
	}
	return nil
}

var familyName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// route picks the action: first what has a fixed path, then the families.
func (s *Simulator) route(c *call, segments []string) (reply, error) {
	method := c.r.Method
	switch {
	case method == http.MethodHead:
		method = http.MethodGet
	case method == http.MethodPatch && c.cfg.AllowPatch:
		method = http.MethodPut
	}
	if answer := s.fixed(c, method, segments); answer != nil {
		return answer()
	}
	if !familyName.MatchString(segments[0]) {
		return reply{}, notFound()
	}
	f := s.family(segments[0])
	switch {
	case len(segments) == 1 && method == http.MethodGet:
		return s.list(c, f)
	case len(segments) == 1 && method == http.MethodPost && !f.noCreate:
		return s.create(c, f)
	case len(segments) == 2 && method == http.MethodGet:
		return s.read(c, f, segments[1])
	case len(segments) == 2 && method == http.MethodPut && !f.noUpdate:
		return s.update(c, f, segments[1])
	case len(segments) == 2 && method == http.MethodDelete && !f.noDelete:
		return s.remove(c, f, segments[1])
	case len(segments) > 2:
		return s.perform(c, f, method, segments[1:])
	}
	return reply{}, notFound()
}

// family returns the family of that name, known or not.
func (s *Simulator) family(name string) family {
	if f, ok := s.families[name]; ok {
		return f
	}
	return family{name: name, one: singular(name)}
}

func (s *Simulator) create(c *call, f family) (reply, error) {
	body, err := c.parsed()
	if err == errTooLarge { // of which nothing but the fact is known
		return c.createdReply(f, c.company.insert(f.name, s.data.nextID(), object{})), nil
	}
	if err != nil {
		return reply{}, err
	}
	records, batch, err := f.records(body)
	if err != nil {
		return reply{}, err
	}
	if !batch {
		r, err := s.createOne(c, f, records[0])
		if err != nil {
			return reply{}, err
		}
		return c.createdReply(f, r), nil
	}
	list := []any{}
	for _, record := range records {
		r, err := s.createOne(c, f, record)
		if err != nil {
			return reply{}, err
		}
		list = append(list, c.render(f, r, true))
	}
	return reply{status: http.StatusCreated, acted: true, value: object{{f.name, list}}}, nil
}

func (s *Simulator) createOne(c *call, f family, sent object) (*row, error) {
	attrs, err := s.accept(c, f, sent, true)
	if err != nil {
		return nil, err
	}
	for _, given := range f.fresh {
		if !attrs.has(given.name) {
			attrs = append(attrs, given)
		}
	}
	attrs = s.complete(c, f, attrs)
	r, err := s.store(c, f, attrs)
	if err != nil {
		return nil, err
	}
	s.settle(c.company, f, object{}, attrs)
	return r, nil
}

// createdReply is 201 with the record and where it is.
func (c *call) createdReply(f family, r *row) reply {
	location := r.path(f)
	if !f.relative {
		location = c.base + location
	}
	return reply{
		status: http.StatusCreated, acted: true, header: [][2]string{{"Location", location}},
		value: object{{f.one, c.render(f, r, true)}},
	}
}

func (s *Simulator) read(c *call, f family, id string) (reply, error) {
	r := c.company.find(f.name, id)
	if r == nil {
		return reply{}, notFound()
	}
	return reply{
		status: http.StatusOK, acted: true, modified: r.updated,
		value: object{{f.one, c.render(f, r, true)}},
	}, nil
}

func (s *Simulator) update(c *call, f family, id string) (reply, error) {
	body, err := c.parsed()
	if err != nil && err != errTooLarge {
		return reply{}, err
	}
	sent, err := s.accept(c, f, f.record(body), false)
	if err != nil {
		return reply{}, err
	}
	var before, after object
	r, err := c.company.update(f.name, id, func(attrs object) (object, error) {
		if err := f.locked(attrs, sent); err != nil {
			return nil, err
		}
		before, after = attrs, f.merge(attrs, sent, s.data.nextID)
		after = f.totals(after)
		return after, nil
	})
	if err != nil {
		return reply{}, err
	}
	s.settle(c.company, f, before, after)
	return c.putReply(f, r), nil
}

// putReply is 200 with the record, or empty as the switch has it.
func (c *call) putReply(f family, r *row) reply {
	rep := reply{status: http.StatusOK, acted: true}
	if !c.cfg.EmptyPUT {
		rep.value = object{{f.one, c.render(f, r, true)}}
	}
	return rep
}

func (s *Simulator) remove(c *call, f family, id string) (reply, error) {
	r := c.company.find(f.name, id)
	if r == nil {
		return reply{}, notFound()
	}
	if err := c.company.removable(f, r); err != nil {
		return reply{}, err
	}
	if !c.company.remove(f.name, id) { // somebody else was faster
		return reply{}, notFound()
	}
	s.settle(c.company, f, r.attrs, object{})
	return reply{status: http.StatusOK, acted: true}, nil
}
