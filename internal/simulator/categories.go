package simulator

import "net/http"

// Categories are unlike all others: their id is the nominal code, and list and
// record are keyed by group.

var categoryFamily = family{name: "categories", one: "category"}

// groupKey is the root of a category's group: income → income_categories.
func groupKey(attrs object) string { return attrs.text("category_group") + "_categories" }

func (s *Simulator) categories(c *call, method string) (reply, error) {
	switch method {
	case http.MethodGet:
		groups := object{}
		for _, key := range []string{"admin_expenses_categories", "cost_of_sales_categories", "income_categories", "general_categories"} {
			list := []any{}
			for _, r := range c.company.scan("categories", func(r *row) bool { return groupKey(r.attrs) == key }) {
				list = append(list, c.renderCategory(r))
			}
			groups = append(groups, field{key, list})
		}
		return reply{status: http.StatusOK, acted: true, value: groups}, nil
	case http.MethodPost:
		return s.createCategory(c)
	}
	return reply{}, notFound()
}

func (s *Simulator) createCategory(c *call) (reply, error) {
	body, err := c.parsed()
	if err != nil {
		return reply{}, err
	}
	attrs := categoryFamily.record(body)
	code := idOf(attrs.get("nominal_code"))
	if code == "" {
		return reply{}, refusal(http.StatusBadRequest, "Invalid nominal code")
	}
	switch attrs.text("category_group") {
	case "income", "cost_of_sales", "admin_expenses", "general":
	default:
		return reply{}, invalid("category_group is not valid")
	}
	if c.company.find("categories", code) != nil {
		return reply{}, invalid("nominal_code has already been taken")
	}
	r := c.company.insert("categories", code, attrs.without("url", "created_at", "updated_at").with("nominal_code", code))
	rep := c.createdReply(categoryFamily, r)
	rep.value = object{{groupKey(r.attrs), c.renderCategory(r)}}
	return rep, nil
}

func (s *Simulator) category(c *call, method, code string) (reply, error) {
	r := c.company.find("categories", code)
	if r == nil {
		return reply{}, notFound()
	}
	switch method {
	case http.MethodGet:
	case http.MethodPut:
		body, err := c.parsed()
		if err != nil {
			return reply{}, err
		}
		sent := categoryFamily.record(body).without("url", "nominal_code", "category_group")
		r, err = c.company.update("categories", code, func(attrs object) (object, error) {
			return categoryFamily.merge(attrs, sent, s.data.nextID), nil
		})
		if err != nil {
			return reply{}, err
		}
	case http.MethodDelete:
		c.company.remove("categories", code)
		return reply{status: http.StatusOK, acted: true}, nil
	default:
		return reply{}, notFound()
	}
	return reply{status: http.StatusOK, acted: true, value: object{{groupKey(r.attrs), c.renderCategory(r)}}}, nil
}

// renderCategory leaves out the group, which is the key, and the times, which categories do not have.
func (c *call) renderCategory(r *row) object {
	return append(object{{"url", ref(r.path(categoryFamily))}}, r.attrs.without("category_group")...)
}
